/**
 * What went wrong with a TLS connection, in our words.
 *
 * Invariant: a certificate that this side does not accept, or the peer does not, is `ERR_UNTRUSTED`, which nobody retries for
 * another outcome; everything else is `ERR_UNAVAILABLE`.
 */
import { ShardloomError } from "../errors.ts";

/** Codes of OpenSSL and Node that speak of certificates, of either side's. */
const CERTIFICATE =
  /^(CERT_|CRL_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|INVALID_CA|PATH_LENGTH|INVALID_PURPOSE|HOSTNAME_MISMATCH|ERR_TLS_CERT|ERR_SSL_.*(CERTIFICATE|UNKNOWN_CA|BAD_CERT))/;

/** An error that a socket gave. */
export function tlsError(action: string, error: Error): ShardloomError {
  const code = (error as { readonly code?: unknown }).code;
  const isUntrusted = typeof code === "string" && CERTIFICATE.test(code);
  const why = isUntrusted ? "a certificate is not accepted" : "the connection failed";
  return new ShardloomError(
    isUntrusted ? "ERR_UNTRUSTED" : "ERR_UNAVAILABLE",
    `Cannot ${action} as ${why}: ${error.message}`,
    { cause: error, details: { reason: typeof code === "string" ? code : "" } },
  );
}

/** A peer's certificate that was found wanting. @param reason What the platform says; null or undefined when there was none */
export function untrusted(address: string, reason: unknown): ShardloomError {
  const why = reason instanceof Error ? reason.message : typeof reason === "string" ? reason : "none was given";
  return new ShardloomError("ERR_UNTRUSTED", `Cannot accept ${address} as its certificate is not accepted: ${why}`, {
    details: { address, reason: why },
  });
}

/** Where a connection comes from. */
export function originOf(socket: {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
}): string {
  return `${socket.remoteAddress ?? "nowhere"}:${socket.remotePort ?? 0}`;
}
