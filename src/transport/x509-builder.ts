/**
 * What makes certificates and requests for them. The adapter over `@peculiar/x509`.
 *
 * Invariant: imported with `await import` only, by what is about to make or read one: the library and its decorators are half of what a small
 * command would load. A certificate says exactly what it is told to; who may have which is decided in src/transport/certificates.ts.
 * Source: RFC 5280 (certificates), RFC 2986 (requests).
 */
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequest,
  Pkcs10CertificateRequestGenerator,
  PublicKey,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { ShardloomError } from "../errors.ts";
import { type CertificateName, type KeyPair, keyBytes, secretBytes } from "./x509.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const SERIAL_BYTES = 16;

/** What a certificate is to say. */
export interface CertificatePlan {
  /** Common name. */
  readonly subject: string;
  readonly names: readonly CertificateName[];
  /** Milliseconds since 1970; certificates have whole seconds. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** DER, SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array;
  /** Who signs: certificate and key, PEM. Absent: the certificate is an authority's and signed by its own key. */
  readonly issuer?: { readonly certificate: string; readonly key: string };
  /** The own key, PEM, when there is no issuer. */
  readonly key?: string;
}

/** Makes a certificate. @returns PEM */
export async function buildCertificate(plan: CertificatePlan): Promise<string> {
  const { issuer, names, subject } = plan;
  const signer = await importKey(issuer?.key ?? plan.key ?? "");
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: [{ CN: [subject] }],
    issuer: issuer === undefined ? [{ CN: [subject] }] : new X509Certificate(issuer.certificate).subjectName,
    notBefore: wholeSecond(plan.notBeforeMs),
    notAfter: wholeSecond(plan.notAfterMs),
    publicKey: new PublicKey(Buffer.from(plan.publicKey)),
    signingKey: signer,
    signingAlgorithm: ALGORITHM,
    extensions: [
      ...(issuer === undefined ? authorityUses() : nodeUses()),
      new SubjectAlternativeNameExtension(
        names.map(({ kind, value }) => ({ type: kind === "uri" ? ("url" as const) : kind, value })),
      ),
      await SubjectKeyIdentifierExtension.create(new PublicKey(Buffer.from(plan.publicKey))),
      ...(issuer === undefined
        ? []
        : [await AuthorityKeyIdentifierExtension.create(new X509Certificate(issuer.certificate).publicKey)]),
    ],
  });
  return `${certificate.toString("pem").trim()}\n`;
}

/** Makes a request for a certificate, signed by the key that it is for. @returns DER */
export async function buildRequest({ key, publicKey }: KeyPair, subject: string): Promise<Uint8Array> {
  const keys = {
    privateKey: await importKey(key),
    publicKey: await webcrypto.subtle.importKey("spki", publicKey, ALGORITHM, true, ["verify"]),
  };
  const request = await Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [subject] }],
    keys,
    signingAlgorithm: ALGORITHM,
  });
  return new Uint8Array(request.rawData);
}

/**
 * The public key that a request is for (DER, SubjectPublicKeyInfo), once it is sure that the requester has the private one.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` for other bytes, `ERR_UNTRUSTED` when the signature is of another key
 */
export async function readRequest(der: Uint8Array): Promise<Uint8Array> {
  let publicKey: Uint8Array;
  let isOwn: boolean;
  try {
    const request = new Pkcs10CertificateRequest(Buffer.from(der));
    publicKey = new Uint8Array(request.publicKey.rawData);
    isOwn = await request.verify();
  } catch (cause) {
    throw new ShardloomError("ERR_CORRUPT", "Cannot read certificate request as it must be DER of RFC 2986", { cause });
  }
  if (isOwn) return publicKey;
  throw new ShardloomError(
    "ERR_UNTRUSTED",
    "Cannot read certificate request as it must be signed by the key that it is for",
  );
}

function authorityUses(): Extension[] {
  return [
    new BasicConstraintsExtension(true, 0, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
  ];
}

/** Nodes are clients and servers of each other. */
function nodeUses(): Extension[] {
  return [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
  ];
}

function importKey(key: string): Promise<webcrypto.CryptoKey> {
  return webcrypto.subtle.importKey("pkcs8", keyBytes(key), ALGORITHM, false, ["sign"]);
}

/** Positive in DER, and of the same length always. */
function serialNumber(): string {
  const bytes = secretBytes(SERIAL_BYTES);
  bytes[0] = ((bytes[0] as number) & 0x7f) | 0x40;
  return Buffer.from(bytes).toString("hex");
}

function wholeSecond(ms: number): Date {
  return new Date(Math.floor(ms / 1000) * 1000);
}
