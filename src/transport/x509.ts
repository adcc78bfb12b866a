/**
 * Certificates and keys as bytes: reading, fingerprints, signatures, new keys. The adapter over `node:crypto`; what makes certificates is
 * src/transport/x509-builder.ts, whose library takes long to load and is needed by few processes.
 *
 * Invariant: whatever bytes are given, the answer is facts of a certificate or `ERR_CORRUPT`; names are read as the certificate has them, so that a
 * name with a comma in it is never taken for two. Nothing here decides whom to trust: {@link isIssuedBy} says only who signed.
 * Keys are ECDSA over P-256 throughout.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  verify,
  X509Certificate,
} from "node:crypto";
import { isIP } from "node:net";
import { ShardloomError } from "../errors.ts";

/** One of the names that a certificate is valid for. */
export interface CertificateName {
  readonly kind: "dns" | "ip" | "uri";
  readonly value: string;
}

/** What a certificate says. */
export interface CertificateFacts {
  readonly der: Uint8Array;
  readonly pem: string;
  /** SHA-256 of its DER, hexadecimal. */
  readonly fingerprint: string;
  readonly serial: string;
  /** Common name of its subject, `""` when it has none. */
  readonly subject: string;
  /** Milliseconds since 1970. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Whether it may sign others. */
  readonly isAuthority: boolean;
  /** Names of other kinds are left out. */
  readonly names: readonly CertificateName[];
  /** DER, SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array;
}

/** A new pair of keys. */
export interface KeyPair {
  /** PEM, PKCS #8. */
  readonly key: string;
  /** DER, SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array;
}

const CURVE = "prime256v1";

/** As kinds of names are called in the text that Node makes of them. */
const KINDS: Readonly<Record<string, CertificateName["kind"]>> = { DNS: "dns", "IP Address": "ip", URI: "uri" };

/** Reads one certificate, PEM or DER; of a chain in PEM the first. @throws {ShardloomError} `ERR_CORRUPT` */
export function readCertificate(bytes: string | Uint8Array): CertificateFacts {
  return guarded(() => {
    const certificate = new X509Certificate(bytes);
    const der = new Uint8Array(certificate.raw);
    return {
      der,
      pem: certificate.toString(),
      fingerprint: fingerprintOf(der),
      serial: certificate.serialNumber.toLowerCase(),
      subject: /^CN=(.*)$/m.exec(certificate.subject)?.[1] ?? "",
      notBeforeMs: timeOf(certificate.validFrom),
      notAfterMs: timeOf(certificate.validTo),
      isAuthority: certificate.ca,
      names: namesOf(certificate.subjectAltName ?? ""),
      publicKey: new Uint8Array(certificate.publicKey.export({ type: "spki", format: "der" })),
    };
  });
}

/** Reads all certificates of a text in PEM, at least one. @throws {ShardloomError} `ERR_CORRUPT` */
export function readCertificates(pem: string): CertificateFacts[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0 || blocks.length > MAX_CERTIFICATES)
    throw corrupt(`1 to ${MAX_CERTIFICATES} certificates`, undefined);
  return blocks.map(readCertificate);
}

const MAX_CERTIFICATES = 16;

/** Whether one certificate names the other as its issuer and has its signature. */
export function isIssuedBy({ der }: CertificateFacts, authority: CertificateFacts): boolean {
  return guarded(() => {
    const issuer = new X509Certificate(authority.der);
    const issued = new X509Certificate(der);
    return authority.isAuthority && issued.checkIssued(issuer) && issued.verify(issuer.publicKey);
  });
}

/** Whether a private key is the one of a certificate. @throws {ShardloomError} `ERR_CORRUPT` when it is no key */
export function isKeyOf(key: string, { der }: CertificateFacts): boolean {
  const found = readKey(key);
  return guarded(() => new X509Certificate(der).checkPrivateKey(found));
}

/** SHA-256, hexadecimal. */
export function fingerprintOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Makes a pair of keys. */
export function createKeyPair(): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync("ec", {
    namedCurve: CURVE,
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "der" },
  });
  return { key: privateKey, publicKey: new Uint8Array(publicKey) };
}

/** DER (PKCS #8) of a private key. @throws {ShardloomError} `ERR_CORRUPT` unless it is a key over P-256 */
export function keyBytes(key: string): Uint8Array {
  return new Uint8Array(readKey(key).export({ type: "pkcs8", format: "der" }));
}

/** Whether bytes are a public key over P-256 (DER, SubjectPublicKeyInfo). */
export function isPublicKey(publicKey: Uint8Array): boolean {
  try {
    const found = createPublicKey({ key: Buffer.from(publicKey), type: "spki", format: "der" });
    return isOnCurve(found);
  } catch {
    return false; // whatever they are, they are no key
  }
}

/** Signs bytes with a private key: 64 bytes. @throws {ShardloomError} `ERR_CORRUPT` when it is no key */
export function signBytes(key: string, bytes: Uint8Array): Uint8Array {
  return new Uint8Array(sign("sha256", bytes, { key: readKey(key), dsaEncoding: "ieee-p1363" }));
}

/** Whether a signature is one of {@link signBytes} with the key of a certificate. */
export function isSignedBy({ der }: CertificateFacts, bytes: Uint8Array, signature: Uint8Array): boolean {
  return guarded(() => {
    const key = new X509Certificate(der).publicKey;
    return isOnCurve(key) && verify("sha256", bytes, { key, dsaEncoding: "ieee-p1363" }, signature);
  });
}

/** Random bytes that nobody can guess. */
export function secretBytes(length: number): Uint8Array {
  return new Uint8Array(randomBytes(length));
}

/** What a text is as a host: an address, a name of letters, digits and hyphens, or neither. */
export function kindOfHost(host: string): "ip" | "dns" | undefined {
  if (isIP(host) !== 0) return host.includes("%") ? undefined : "ip"; // an interface's name is no part of a certificate
  return host.length <= MAX_HOST_LENGTH && HOST.test(host) && !/^[\d.]+$/.test(host) ? "dns" : undefined;
}

const MAX_HOST_LENGTH = 253;
const HOST = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;

/** Some damage shows when a certificate is parsed, some only when its key or its times are looked at. */
function guarded<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw corrupt("a certificate", cause);
  }
}

/** `Jan  1 00:00:00 2030 GMT`. */
function timeOf(text: string): number {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new RangeError(`no time: ${text}`);
  return ms;
}

function readKey(key: string): KeyObject {
  let found: KeyObject;
  try {
    found = createPrivateKey(key);
  } catch (cause) {
    throw corrupt("a private key without a password", cause);
  }
  if (!isOnCurve(found)) throw corrupt("a private key of ECDSA over P-256", undefined);
  return found;
}

function isOnCurve({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): boolean {
  return asymmetricKeyType === "ec" && asymmetricKeyDetails?.namedCurve === CURVE;
}

/**
 * `DNS:localhost, URI:"a\u002c b"` → names. Node writes a value as JSON when it holds anything that the list itself is made of; a text that it
 * could not have written gives no names at all.
 */
function namesOf(text: string): CertificateName[] {
  const names: CertificateName[] = [];
  const entry = /([A-Za-z0-9 ]+):("(?:[^"\\]|\\.)*"|[^,"]*)(?:, |$)/y;
  while (entry.lastIndex < text.length) {
    const [, prefix = "", value = ""] = entry.exec(text) ?? [];
    if (prefix === "") return [];
    const kind = KINDS[prefix];
    if (kind === undefined) continue;
    const plain = value.startsWith('"') ? (JSON.parse(value) as string) : value;
    names.push({ kind, value: kind === "ip" ? shortAddress(plain) : plain });
  }
  return names;
}

/** `0:0:0:0:0:0:0:1` → `::1`. */
function shortAddress(address: string): string {
  return address.includes(":") && isIP(address) === 6 ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
}

/** Keys and what is taken for one are never part of the message. */
function corrupt(rule: string, cause: unknown): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot read PEM or DER as it must be ${rule}`, {
    ...(cause === undefined ? {} : { cause }),
  });
}
