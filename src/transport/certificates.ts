/**
 * The certificates of a cluster: an authority made at run time, without any other program, and what it issues to nodes.
 *
 * Invariant: an authority signs for its own cluster only, and nothing that is valid longer than itself; what it issues is one node's and cannot sign
 * others. A renewed certificate keeps node, hosts and key, so that the file of the certificate alone is replaced and never fits an older key.
 * Times are given (`wallMs`, milliseconds since 1970), as the clocks of the runtime know nothing of the calendar.
 */
import { describeValue, invalidArgument, ShardloomError } from "../errors.ts";
import { checkIdentityName, clusterOfAuthority, identityOf, identityUri, type NodeIdentity } from "./node-identity.ts";
import {
  type CertificateFacts,
  type CertificateName,
  createKeyPair,
  isIssuedBy,
  isKeyOf,
  isPublicKey,
  kindOfHost,
  readCertificate,
  readCertificates,
} from "./x509.ts";

/** A certificate and its private key, both PEM. */
export interface KeyedCertificate {
  readonly certificate: string;
  readonly key: string;
}

/** What a node needs to be believed and to believe others. */
export interface NodeCertificate extends KeyedCertificate {
  /** Certificate of the cluster's authority, PEM. */
  readonly authority: string;
}

/** How an authority is made. */
export interface AuthorityOptions {
  /** Name of its cluster: 1 to 63 letters, digits, dots, hyphens and underscores. */
  readonly name: string;
  /** How long it is valid, 1 to 3650. @default 3650 */
  readonly days?: number;
  /** The time now, in milliseconds since 1970. */
  readonly wallMs: number;
}

/** How a certificate is issued. */
export interface IssueOptions {
  /** Name of the node, by the rule of a cluster's name. */
  readonly node: string;
  /** Names and addresses that others reach the node by, at most 32. @default none */
  readonly hosts?: readonly string[];
  /** How long it is valid, 1 to 3650, and not beyond its authority. @default 365, or what is left of its authority */
  readonly days?: number;
  /** The time now, in milliseconds since 1970. */
  readonly wallMs: number;
}

/** @default of {@link AuthorityOptions.days} */
export const AUTHORITY_DAYS = 3650;
/** @default of {@link IssueOptions.days} */
export const NODE_DAYS = 365;
const MAX_DAYS = 3650;
const MAX_HOSTS = 32;
const DAY_MS = 24 * 60 * 60 * 1000;
/** Certificates begin a little earlier than they are made, for machines whose clocks are behind. */
const SKEW_MS = 5 * 60 * 1000;

/**
 * Makes the authority of a cluster, with a key of its own.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`
 *
 * @example A cluster's certificates
 * const authority = await createAuthority({ name: "shop", wallMs: Date.now() });
 * const { certificate, key } = await issueCertificate(authority, { node: "a", hosts: ["10.0.0.1"], wallMs: Date.now() });
 */
export async function createAuthority({
  name,
  days = AUTHORITY_DAYS,
  wallMs,
}: AuthorityOptions): Promise<KeyedCertificate> {
  checkIdentityName("create authority", "name", name);
  checkDays("create authority", days);
  const { buildCertificate } = await import("./x509-builder.ts");
  const { key, publicKey } = createKeyPair();
  const certificate = await buildCertificate({
    subject: `Shardloom authority of ${name}`.slice(0, MAX_SUBJECT),
    names: [{ kind: "uri", value: identityUri(name) }],
    notBeforeMs: wallMs - SKEW_MS,
    notAfterMs: wallMs + days * DAY_MS,
    publicKey,
    key,
  });
  return { certificate, key };
}

/** Issues a certificate with a new key. @throws {ShardloomError} As {@link certifyKey}. */
export async function issueCertificate(authority: KeyedCertificate, options: IssueOptions): Promise<NodeCertificate> {
  const { key, publicKey } = createKeyPair();
  const certificate = await certifyKey(authority, publicKey, options);
  return { certificate, key, authority: authority.certificate };
}

/**
 * Issues a certificate for a key that somebody else has.
 *
 * @param publicKey DER, SubjectPublicKeyInfo; of ECDSA over P-256. That the node has the private one must have been seen already.
 * @returns The certificate, PEM.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_CORRUPT` for an authority that cannot be read; `ERR_UNTRUSTED` for one that is none, is
 *   not valid now, or whose key is another one's.
 */
export async function certifyKey(
  authority: KeyedCertificate,
  publicKey: Uint8Array,
  options: IssueOptions,
): Promise<string> {
  const { node, hosts = [], wallMs } = options;
  checkIdentityName(ACTION, "node", node);
  const issuer = checkAuthority(authority, wallMs);
  if (!isPublicKey(publicKey))
    throw invalidArgument(ACTION, "publicKey", "of ECDSA over P-256", `${publicKey.length} other bytes`);
  const cluster = clusterOfAuthority(issuer);
  const names: CertificateName[] = [{ kind: "uri", value: identityUri(cluster, node) }, ...namesOfHosts(hosts)];
  const notAfterMs = endOf(options.days, wallMs, issuer);
  const { buildCertificate } = await import("./x509-builder.ts");
  return buildCertificate({
    subject: node,
    names,
    notBeforeMs: Math.max(wallMs - SKEW_MS, issuer.notBeforeMs),
    notAfterMs,
    publicKey,
    issuer: authority,
  });
}

/**
 * Issues a certificate of the authority's once more: same node, hosts and key, new validity. An expired one can be renewed.
 *
 * @param certificate The old one, PEM.
 * @returns The new one, PEM.
 * @throws {ShardloomError} As {@link certifyKey}; `ERR_UNTRUSTED` when the authority has not issued it.
 */
export async function renewCertificate(
  authority: KeyedCertificate,
  certificate: string,
  { days, wallMs }: Pick<IssueOptions, "days" | "wallMs">,
): Promise<string> {
  const old = readCertificate(certificate);
  const { node } = identityOf(old);
  if (!isIssuedBy(old, readCertificate(authority.certificate)))
    throw untrusted(`renew certificate of node ${node}`, "this authority must have issued it");
  const hosts = old.names.filter(({ kind }) => kind !== "uri").map(({ value }) => value);
  return certifyKey(authority, old.publicKey, { node, hosts, wallMs, ...(days === undefined ? {} : { days }) });
}

/**
 * Reads an authority's certificate and checks that it can issue now.
 *
 * @throws {ShardloomError} `ERR_CORRUPT`, `ERR_UNTRUSTED`
 */
export function checkAuthority(authority: KeyedCertificate, wallMs: number): CertificateFacts {
  const facts = readCertificate(authority.certificate);
  clusterOfAuthority(facts);
  if (!isKeyOf(authority.key, facts)) throw untrusted("use authority", "its key must be the one of its certificate");
  checkValidity(facts, wallMs);
  return facts;
}

/** A node's certificate that was found to be whole. */
export interface CheckedCertificate extends NodeCertificate, NodeIdentity {
  /** SHA-256 of the certificate, hexadecimal. */
  readonly fingerprint: string;
  /** Milliseconds since 1970. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/**
 * Checks what a node is to run with: the key is the certificate's, the authority is of the same cluster and has issued it, and it is valid now.
 * In place of one authority there may be several, one after the other, while a cluster changes from one to the next.
 *
 * @throws {ShardloomError} `ERR_CORRUPT`, `ERR_UNTRUSTED`
 */
export function checkNodeCertificate(
  { certificate, key, authority }: NodeCertificate,
  wallMs: number,
): CheckedCertificate {
  const facts = readCertificate(certificate);
  const identity = identityOf(facts);
  const use = `use certificate of node ${identity.node}`;
  if (!isKeyOf(key, facts)) throw untrusted(use, "its key must be the one of the certificate");
  const authorities = readCertificates(authority);
  for (const each of authorities)
    if (clusterOfAuthority(each) !== identity.cluster)
      throw untrusted(use, `its authority must be of cluster ${identity.cluster}`, clusterOfAuthority(each));
  if (!authorities.some((each) => isIssuedBy(facts, each))) throw untrusted(use, "its authority must have issued it");
  checkValidity(facts, wallMs);
  const { fingerprint, notBeforeMs, notAfterMs } = facts;
  return { certificate, key, authority, ...identity, fingerprint, notBeforeMs, notAfterMs };
}

/** Throws unless a certificate is valid at a time. @throws {ShardloomError} `ERR_UNTRUSTED` */
export function checkValidity({ subject, notBeforeMs, notAfterMs }: CertificateFacts, wallMs: number): void {
  if (wallMs >= notBeforeMs && wallMs <= notAfterMs) return;
  const [from, until, now] = [notBeforeMs, notAfterMs, wallMs].map((ms) => new Date(ms).toISOString());
  throw new ShardloomError(
    "ERR_UNTRUSTED",
    `Cannot use certificate of ${describeValue(subject)} as the time must be between ${from} and ${until}: current value is ${now}`,
    { details: { subject, notBeforeMs, notAfterMs, wallMs } },
  );
}

function untrusted(action: string, rule: string, value?: string): ShardloomError {
  const current = value === undefined ? "" : `: current value is ${value}`;
  return new ShardloomError("ERR_UNTRUSTED", `Cannot ${action} as ${rule}${current}`, { details: { rule } });
}

const ACTION = "issue certificate";
/** RFC 5280, upper bound of a common name. */
const MAX_SUBJECT = 64;

function checkDays(action: string, days: number, most: number = MAX_DAYS): void {
  if (!Number.isInteger(days) || days < 1 || days > most)
    throw invalidArgument(action, "days", `an integer between 1 and ${most}`, days);
}

function endOf(days: number | undefined, wallMs: number, { notAfterMs }: CertificateFacts): number {
  if (days === undefined) return Math.min(wallMs + NODE_DAYS * DAY_MS, notAfterMs);
  checkDays(ACTION, days);
  if (wallMs + days * DAY_MS <= notAfterMs) return wallMs + days * DAY_MS;
  const left = Math.floor((notAfterMs - wallMs) / DAY_MS);
  throw invalidArgument(ACTION, "days", `at most ${left}, as its authority is not valid longer`, days);
}

/** Checks hosts and says what each is. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
export function namesOfHosts(hosts: readonly string[]): CertificateName[] {
  if (hosts.length > MAX_HOSTS)
    throw invalidArgument(ACTION, "hosts", `at most ${MAX_HOSTS} names and addresses`, hosts.length);
  return [...new Set(hosts)].map((value) => {
    const kind = kindOfHost(value);
    if (kind === undefined) throw invalidArgument(ACTION, "hosts", "names and addresses without ports", value);
    return { kind, value };
  });
}
