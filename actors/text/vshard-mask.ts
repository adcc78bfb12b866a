/**
 * Which vshards a planned request is to be answered for.
 *
 * Invariant: a request that names none is answered for all documents of the shard. A mask never changes, and the same set is the
 * same object while it is asked for often.
 */

/** By vshard: not 0 = its documents are asked for. Undefined: all are. */
export type VshardMask = Uint8Array | undefined;
