/**
 * CRC-32 (IEEE 802.3, reflected 0xEDB88320) over bytes, as zlib computes it: of what goes to a disk or over a wire.
 *
 * Invariant: the same bytes have the same checksum on every machine and Node version, so it may travel and be stored. It finds accidents
 * (any single burst of up to 32 bits), not forgeries.
 */
import { crc32 as zlibCrc32 } from "node:zlib";

/**
 * The checksum as an integer in `[0, 2^32)`.
 *
 * @param data Text counts as its UTF-8 bytes.
 * @param before Checksum of what comes before, to go on from. @default 0, nothing
 */
export function crc32(data: Uint8Array | string, before = 0): number {
  // Of an array without memory, which an empty one may be, zlib says 0 whatever came before.
  return data.length === 0 ? before : zlibCrc32(data, before);
}
