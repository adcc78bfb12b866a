/**
 * Tokens that let a new node have its certificate: what the holder of an authority signs and gives to somebody, who hands it in once.
 *
 * `shardloom-join-1.<claim>.<signature>`: the claim is JSON in base64url, the signature is the authority's over everything before it.
 *
 * Invariant: what a token grants (a node's name, its hosts, until when) was decided by who holds the authority; who joins adds nothing but a key. A
 * token is a secret until it was used, so no error has its text. It also names the authority, so that who joins knows whom to believe before it
 * has any certificate. That a token is used once is for who accepts it: see src/transport/used-tokens.ts.
 * Source: the shape of JSON Web Tokens (RFC 7515). Divergence: one algorithm, no header; kubeadm's `--discovery-token-ca-cert-hash` is in the claim.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import { checkAuthority, type KeyedCertificate, namesOfHosts } from "./certificates.ts";
import { checkIdentityName, clusterOfAuthority, isIdentityName } from "./node-identity.ts";
import { type CertificateFacts, isSignedBy, secretBytes, signBytes } from "./x509.ts";

/** What a token says. Believed only after {@link verifyJoinToken}. */
export interface JoinClaim {
  readonly cluster: string;
  readonly node: string;
  /** Names and addresses for the node's certificate. */
  readonly hosts: readonly string[];
  /** Milliseconds since 1970. */
  readonly expiresMs: number;
  /** What makes it one token among all: 32 hexadecimal digits. */
  readonly nonce: string;
  /** SHA-256 of the authority's certificate, hexadecimal. */
  readonly authority: string;
}

/** How a token is made. */
export interface JoinTokenOptions {
  /** Name of the node that may join. */
  readonly node: string;
  /** Names and addresses that others will reach it by, at most 32. @default none */
  readonly hosts?: readonly string[];
  /** How long it can be used, 1 to 10080. @default 60 */
  readonly minutes?: number;
  /** The time now, in milliseconds since 1970. */
  readonly wallMs: number;
}

/** @default of {@link JoinTokenOptions.minutes} */
export const TOKEN_MINUTES = 60;
/** One week. */
export const MAX_TOKEN_MINUTES = 10_080;
/** Longest text of a token: 32 hosts of 253 characters fit in. */
export const MAX_TOKEN_LENGTH = 16_384;

const PREFIX = "shardloom-join-1";
const NONCE_BYTES = 16;
/** ECDSA over P-256. */
const SIGNATURE_BYTES = 64;
const NONCE = /^[0-9a-f]{32}$/;
const FINGERPRINT = /^[0-9a-f]{64}$/;
const MINUTE_MS = 60_000;
const ACTION = "create join token";

/**
 * Makes a token.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_CORRUPT`, `ERR_UNTRUSTED` for an authority that cannot issue now.
 */
export function createJoinToken(authority: KeyedCertificate, options: JoinTokenOptions): string {
  const { node, hosts = [], minutes = TOKEN_MINUTES, wallMs } = options;
  checkIdentityName(ACTION, "node", node);
  namesOfHosts(hosts);
  if (!Number.isInteger(minutes) || minutes < 1 || minutes > MAX_TOKEN_MINUTES)
    throw invalidArgument(ACTION, "minutes", `an integer between 1 and ${MAX_TOKEN_MINUTES}`, minutes);
  const issuer = checkAuthority(authority, wallMs);
  const claim: JoinClaim = {
    cluster: clusterOfAuthority(issuer),
    node,
    hosts,
    expiresMs: Math.floor(wallMs) + minutes * MINUTE_MS,
    nonce: Buffer.from(secretBytes(NONCE_BYTES)).toString("hex"),
    authority: issuer.fingerprint,
  };
  const signed = `${PREFIX}.${encode(new TextEncoder().encode(JSON.stringify(claim)))}`;
  return `${signed}.${encode(signBytes(authority.key, new TextEncoder().encode(signed)))}`;
}

/**
 * What a token says, without believing it: for who joins and has nothing to check it with.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` when it is no token, or only a part of one.
 */
export function readJoinToken(token: string): JoinClaim {
  return split(token).claim;
}

/**
 * What a token says, once it is sure that the authority has made it and that it can be used now.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` when it is no token, `ERR_UNTRUSTED` when it is another authority's, changed, or expired.
 */
export function verifyJoinToken(token: string, authority: CertificateFacts, wallMs: number): JoinClaim {
  const { claim, signed, signature } = split(token);
  if (claim.authority !== authority.fingerprint || claim.cluster !== clusterOfAuthority(authority))
    throw untrusted(claim, `it must be of this cluster's authority: current value is cluster ${claim.cluster}`);
  if (!isSignedBy(authority, new TextEncoder().encode(signed), signature))
    throw untrusted(claim, "it must have the signature of its authority");
  if (wallMs > claim.expiresMs) {
    const [end, now] = [claim.expiresMs, wallMs].map((ms) => new Date(ms).toISOString());
    throw untrusted(claim, `the time must be at most ${end}: current value is ${now}`);
  }
  return claim;
}

interface TokenParts {
  readonly claim: JoinClaim;
  readonly signed: string;
  readonly signature: Uint8Array;
}

function split(token: string): TokenParts {
  if (typeof token !== "string" || token.length > MAX_TOKEN_LENGTH) throw corrupt();
  const [prefix, claim = "", signature = "", ...more] = token.trim().split(".");
  if (prefix !== PREFIX || more.length > 0) throw corrupt();
  const parts = { claim: claimOf(decode(claim)), signed: `${prefix}.${claim}`, signature: decode(signature) };
  // Who joins cannot check the signature, but sees a token whose end was left behind when it was copied.
  if (parts.signature.length !== SIGNATURE_BYTES) throw corrupt();
  return parts;
}

function claimOf(bytes: Uint8Array): JoinClaim {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw corrupt(); // the cause would have a part of the token in it
  }
  const claim = (typeof value === "object" && value !== null ? value : {}) as JoinClaim;
  const { cluster, node, hosts, expiresMs, nonce, authority } = claim;
  const isWhole =
    isIdentityName(cluster) &&
    isIdentityName(node) &&
    Array.isArray(hosts) &&
    hosts.every((host) => typeof host === "string") &&
    Number.isSafeInteger(expiresMs) &&
    typeof nonce === "string" &&
    NONCE.test(nonce) &&
    typeof authority === "string" &&
    FINGERPRINT.test(authority);
  if (!isWhole || Math.abs(expiresMs) > MAX_TIME_MS) throw corrupt();
  return { cluster, node, hosts, expiresMs, nonce, authority };
}

/** Latest time of a Date. */
const MAX_TIME_MS = 8.64e15;

function encode(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64url");
}

/** Node reads past what is no base64url; here one token has one text. */
function decode(text: string): Uint8Array {
  const bytes = Buffer.from(text, "base64url");
  if (bytes.toString("base64url") !== text) throw corrupt();
  return new Uint8Array(bytes);
}

function corrupt(): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read join token as it must be a whole one, from ${PREFIX} to its last character`,
  );
}

function untrusted({ cluster, node, expiresMs }: JoinClaim, rule: string): ShardloomError {
  return new ShardloomError("ERR_UNTRUSTED", `Cannot use join token for node ${node} as ${rule}`, {
    details: { cluster, node, expiresMs },
  });
}
