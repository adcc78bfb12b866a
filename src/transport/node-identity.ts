/**
 * Which node a certificate belongs to: the URI `shardloom://<cluster>/<node>` among its names.
 *
 * Invariant: a certificate is one node's of one cluster, or it is refused; that of an authority is nobody's. Nothing here checks who signed it or
 * whether it is valid now: the transport has done so (TLS 1.3, both sides, the cluster's authority alone) before it asks who the peer is.
 * Source: SPIFFE's X509-SVID (one URI among the subject's alternative names is the identity; host names are not).
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import { type CertificateFacts, readCertificate } from "./x509.ts";

/** A node among all nodes of all clusters. */
export interface NodeIdentity {
  readonly cluster: string;
  readonly node: string;
}

const SCHEME = "shardloom://";
/** Safe in a URI, in the name of a file and in a log. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
/** In words, for errors. */
export const NAME_RULE = "1 to 63 letters, digits, dots, hyphens and underscores, the first a letter or digit";

/** Whether a text can be the name of a node or of a cluster. */
export function isIdentityName(name: unknown): name is string {
  return typeof name === "string" && NAME.test(name);
}

/** Throws unless a value can be the name of a node or a cluster. @param field Which one, for the error */
export function checkIdentityName(action: string, field: "node" | "cluster" | "name", name: unknown): void {
  if (!isIdentityName(name)) throw invalidArgument(action, field, NAME_RULE, name);
}

/** The URI of a node; without a node that of the cluster, which its authority's certificate has. */
export function identityUri(cluster: string, node?: string): string {
  return node === undefined ? `${SCHEME}${cluster}` : `${SCHEME}${cluster}/${node}`;
}

/**
 * The node that a certificate was issued for.
 *
 * @param der The certificate as TLS gives it.
 * @throws {ShardloomError} `ERR_CORRUPT` when the bytes are no certificate, `ERR_UNTRUSTED` when it names no node, several, or an authority.
 */
export function nodeOfCertificate(der: Uint8Array): NodeIdentity {
  return identityOf(readCertificate(der));
}

/** As {@link nodeOfCertificate}, of a certificate that was read already. */
export function identityOf(certificate: CertificateFacts): NodeIdentity {
  if (certificate.isAuthority) throw untrusted("must be a node's", "an authority's");
  const uris = urisOf(certificate);
  const [cluster, node, ...more] = (uris[0] ?? "").slice(SCHEME.length).split("/");
  if (uris.length === 1 && isIdentityName(cluster) && isIdentityName(node) && more.length === 0)
    return { cluster, node };
  throw untrusted(`must have exactly one name ${SCHEME}<cluster>/<node>`, describe(uris));
}

/** The cluster whose authority a certificate is. @throws {ShardloomError} `ERR_UNTRUSTED` when it is none */
export function clusterOfAuthority(certificate: CertificateFacts): string {
  if (!certificate.isAuthority) throw untrusted("must be an authority's", "a certificate that may not sign others");
  const uris = urisOf(certificate);
  const cluster = (uris[0] ?? "").slice(SCHEME.length);
  if (uris.length === 1 && isIdentityName(cluster)) return cluster;
  throw untrusted(`must have exactly one name ${SCHEME}<cluster>`, describe(uris));
}

/** Names of another scheme are others' business. */
function urisOf({ names }: CertificateFacts): string[] {
  return names.filter(({ kind, value }) => kind === "uri" && value.startsWith(SCHEME)).map(({ value }) => value);
}

const MOST_NAMED = 3;

function describe(uris: readonly string[]): string {
  const named = uris.slice(0, MOST_NAMED).map((uri) => JSON.stringify(uri.slice(0, 150)));
  return uris.length === 0 ? "none" : `${named.join(", ")}${uris.length > MOST_NAMED ? " and more" : ""}`;
}

function untrusted(rule: string, value: string): ShardloomError {
  return new ShardloomError(
    "ERR_UNTRUSTED",
    `Cannot take certificate for a node's as it ${rule}: current value is ${value}`,
    {
      details: { value },
    },
  );
}
