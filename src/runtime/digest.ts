/**
 * SHA-256 of what is copied from one place to another. The adapter over the platform's.
 *
 * Invariant: the digest of a file that was copied piece by piece is that of the whole file; a digest is read once.
 */
import { createHash } from "node:crypto";

/** A digest that grows with what it is given. */
export interface Digest {
  add(bytes: Uint8Array): void;
  /** Hexadecimal. Nothing may be added afterwards. */
  end(): string;
}

export function createDigest(): Digest {
  const hash = createHash("sha256");
  return {
    add: (bytes) => void hash.update(bytes),
    end: () => hash.digest("hex"),
  };
}
