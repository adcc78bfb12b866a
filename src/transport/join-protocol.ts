/**
 * How a new node gets its certificate: three messages between it and a node that holds the authority, over TLS that does not ask it for one yet.
 *
 * 1. The acceptor shows the authority's certificate, and its signature over the certificate that TLS has shown: it holds the authority.
 * 2. Who joins has found the authority to be the one in its token, and only now sends the token, with a request for its own key.
 * 3. The acceptor answers with a certificate, or with the reason why not.
 *
 * Invariant: the token is seen by nobody but who holds the authority that made it, not even by another node of the cluster that stands between. The
 * certificate is for the key of who sent the token, and for the node that the token names. A token is used up only by a certificate that was made
 * for it; when the answer is lost it stays used. No message is larger than {@link MAX_JOIN_MESSAGE_BYTES}.
 * No I/O here: who has the connection limits its time and how many there are, and passes on the certificate that TLS has verified to be the peer's.
 */
import { describeValue, ERROR_CODES, type ErrorCode, ShardloomError } from "../errors.ts";
import {
  type CheckedCertificate,
  certifyKey,
  checkAuthority,
  checkNodeCertificate,
  checkValidity,
  type KeyedCertificate,
} from "./certificates.ts";
import { type JoinClaim, readJoinToken, verifyJoinToken } from "./join-token.ts";
import { clusterOfAuthority, identityOf } from "./node-identity.ts";
import type { UsedTokens } from "./used-tokens.ts";
import { createKeyPair, fingerprintOf, isIssuedBy, isSignedBy, readCertificate, signBytes } from "./x509.ts";

/** Version of the messages. */
export const JOIN_PROTOCOL = 1;
/** Largest message. */
export const MAX_JOIN_MESSAGE_BYTES: number = 64 * 1024;

/** The side that joins. */
export interface Joiner {
  /** What the token says. */
  readonly claim: JoinClaim;
  /**
   * The request, once the acceptor is known to hold the token's authority.
   *
   * @param welcome First message of the acceptor.
   * @param acceptor The certificate (DER) that it has shown in the handshake of TLS.
   * @throws {ShardloomError} `ERR_CORRUPT`, `ERR_VERSION_MISMATCH`, `ERR_UNTRUSTED`: close the connection, the token was not sent.
   */
  request(welcome: Uint8Array, acceptor: Uint8Array): Promise<Uint8Array>;
  /**
   * The certificate, key and authority of the new node.
   *
   * @param answer Second message of the acceptor.
   * @throws {ShardloomError} The acceptor's reason, with its code; `ERR_CORRUPT`, `ERR_UNTRUSTED` when the answer is not what was asked for.
   */
  finish(answer: Uint8Array): CheckedCertificate;
}

/** The side that holds the authority. */
export interface JoinAcceptor {
  /** First message. @param own The certificate (DER) that this side shows in the handshake of TLS. */
  welcome(own: Uint8Array): Uint8Array;
  /** Judges a request. Never rejects: what goes wrong is an answer too. */
  answer(request: Uint8Array): Promise<JoinOutcome>;
}

/** What became of a request. */
export interface JoinOutcome {
  /** Second message. */
  readonly answer: Uint8Array;
  /** The node that has its certificate now. */
  readonly joined?: { readonly node: string; readonly fingerprint: string; readonly notAfterMs: number };
  /** Why there is none; more than the other side is told. */
  readonly refused?: ShardloomError;
}

/** How joins are accepted. */
export interface JoinAcceptorOptions {
  readonly authority: KeyedCertificate;
  readonly used: UsedTokens;
  /** Validity of the certificates. @default as of {@link certifyKey} */
  readonly days?: number;
  /** The time now, in milliseconds since 1970. */
  readonly wallMs: () => number;
}

/** Begins a join, with a new key. @throws {ShardloomError} `ERR_CORRUPT` when the token is none, `ERR_UNTRUSTED` when it has expired. */
export function createJoiner(token: string, wallMs: () => number): Joiner {
  const claim = readJoinToken(token);
  if (wallMs() > claim.expiresMs) throw untrusted(claim.node, "the token must not have expired");
  const pair = createKeyPair();
  let authority = "";
  return {
    claim,
    async request(welcome, acceptor) {
      authority = checkWelcome(welcome, acceptor, claim, wallMs());
      const { buildRequest } = await import("./x509-builder.ts");
      const request = Buffer.from(await buildRequest(pair, claim.node)).toString("base64");
      return encode({ protocol: JOIN_PROTOCOL, token: token.trim(), request });
    },
    finish(answer) {
      const { certificate, error } = decode(answer);
      if (error !== undefined) throw errorOf(error);
      if (typeof certificate !== "string") throw corrupt("an answer with a certificate or an error");
      const checked = checkNodeCertificate({ certificate, key: pair.key, authority }, wallMs());
      if (checked.node === claim.node) return checked;
      throw untrusted(claim.node, `the certificate must be its own: current value is node ${checked.node}`);
    },
  };
}

/** Accepts joins. @throws {ShardloomError} `ERR_CORRUPT`, `ERR_UNTRUSTED` when the authority cannot issue now */
export function createJoinAcceptor(options: JoinAcceptorOptions): JoinAcceptor {
  const { authority, wallMs } = options;
  checkAuthority(authority, wallMs());
  return {
    welcome: (own) => {
      const proof = Buffer.from(signBytes(authority.key, proofText(own))).toString("base64");
      return encode({ protocol: JOIN_PROTOCOL, authority: authority.certificate, proof });
    },
    answer: async (request) => {
      try {
        const { node, certificate } = await certify(request, options);
        const { fingerprint, notAfterMs } = readCertificate(certificate);
        return { answer: encode({ certificate }), joined: { node, fingerprint, notAfterMs } };
      } catch (error) {
        const refused = ShardloomError.from(error);
        return { answer: encode({ error: told(refused) }), refused };
      }
    },
  };
}

/** The certificate is made before the token is used up, so that nothing but a lost answer wastes one. */
async function certify(
  request: Uint8Array,
  { authority, days, used, wallMs }: JoinAcceptorOptions,
): Promise<{ readonly node: string; readonly certificate: string }> {
  const { token, request: signed } = decodeVersioned(request);
  if (typeof token !== "string" || typeof signed !== "string") throw corrupt("a request with a token");
  const now = wallMs();
  const claim = verifyJoinToken(token, checkAuthority(authority, now), now);
  const { node, hosts } = claim;
  const { readRequest } = await import("./x509-builder.ts");
  const publicKey = await readRequest(Buffer.from(signed, "base64"));
  const options = { node, hosts, wallMs: now, ...(days === undefined ? {} : { days }) };
  const certificate = await certifyKey(authority, publicKey, options);
  if (await used.remember(claim, now)) return { node, certificate };
  throw untrusted(node, "the token must not have been used before");
}

/** @returns The authority's certificate, PEM. */
function checkWelcome(welcome: Uint8Array, acceptor: Uint8Array, claim: JoinClaim, wallMs: number): string {
  const { authority: pem, proof } = decodeVersioned(welcome);
  if (typeof pem !== "string" || typeof proof !== "string") throw corrupt("a welcome with an authority");
  const authority = readCertificate(pem);
  if (authority.fingerprint !== claim.authority || clusterOfAuthority(authority) !== claim.cluster)
    throw untrusted(claim.node, "the acceptor's authority must be the token's");
  checkValidity(authority, wallMs);
  const peer = readCertificate(acceptor);
  const isMember = isIssuedBy(peer, authority) && identityOf(peer).cluster === claim.cluster;
  if (!isMember) throw untrusted(claim.node, `the acceptor must be a node of cluster ${claim.cluster}`);
  checkValidity(peer, wallMs);
  if (!isSignedBy(authority, proofText(acceptor), Buffer.from(proof, "base64")))
    throw untrusted(claim.node, "the acceptor must hold the authority");
  return authority.pem;
}

/** What the authority signs for the one who may accept joins with a certificate. No token and no certificate begins like it. */
function proofText(certificate: Uint8Array): Uint8Array {
  return new TextEncoder().encode(`shardloom-acceptor-${JOIN_PROTOCOL} ${fingerprintOf(certificate)}`);
}

function encode(message: Readonly<Record<string, unknown>>): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(message));
}

function decode(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    if (bytes.length > MAX_JOIN_MESSAGE_BYTES) throw new RangeError(`${bytes.length} bytes`);
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw corrupt(`JSON of at most ${MAX_JOIN_MESSAGE_BYTES} bytes`); // the cause may have a part of a token in it
  }
  if (typeof value !== "object" || value === null) throw corrupt("a JSON object");
  return value as Readonly<Record<string, unknown>>;
}

/** As {@link decode}, of a message with a version: all but answers, as every version must be able to read a refusal. */
function decodeVersioned(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  const message = decode(bytes);
  const { protocol } = message;
  if (protocol === JOIN_PROTOCOL) return message;
  throw new ShardloomError(
    "ERR_VERSION_MISMATCH",
    `Cannot join as protocol must be ${JOIN_PROTOCOL}: current value is ${describeValue(protocol)}`,
    { details: { name: "protocol", rule: JOIN_PROTOCOL } },
  );
}

/** Reasons that concern the one who asks; what goes wrong inside is nobody else's to know. */
const TOLD: readonly ErrorCode[] = [
  "ERR_UNTRUSTED",
  "ERR_CORRUPT",
  "ERR_INVALID_ARGUMENT",
  "ERR_OVERLOADED",
  "ERR_VERSION_MISMATCH",
];

function told({ code, message }: ShardloomError): { readonly code: ErrorCode; readonly message: string } {
  if (TOLD.includes(code)) return { code, message };
  return { code: "ERR_UNAVAILABLE", message: "Cannot join as the acceptor cannot issue certificates now" };
}

function errorOf(error: unknown): ShardloomError {
  const { code, message } = (typeof error === "object" && error !== null ? error : {}) as Record<string, unknown>;
  if (typeof code !== "string" || typeof message !== "string") throw corrupt("an error with code and message");
  const known = Object.hasOwn(ERROR_CODES, code) ? (code as ErrorCode) : "ERR_UNAVAILABLE";
  return new ShardloomError(known, message.slice(0, MAX_REASON_LENGTH));
}

const MAX_REASON_LENGTH = 500;

function corrupt(rule: string): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot read message of a join as it must be ${rule}`);
}

function untrusted(node: string, rule: string): ShardloomError {
  return new ShardloomError("ERR_UNTRUSTED", `Cannot join as node ${node} as ${rule}`, { details: { node } });
}
