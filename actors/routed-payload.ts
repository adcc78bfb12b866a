/**
 * Requests with a plan's prefix before their body, and replies read from behind theirs.
 *
 * Invariant: a body is written and read at a multiple of 8, as without a prefix.
 */
import { ShardloomError } from "../src/errors.ts";
import type { Payload, ReplyFrame } from "../src/routing/requester.ts";
import {
  CONSISTENCY,
  type RoutedRequest,
  readRoutedReply,
  routedRequestBytes,
  SCOPE,
  writeRoutedRequest,
} from "../src/wire/routed-codec.ts";

/** A read of every vshard whose primary the shard is. */
export const STRONG_READ: RoutedRequest = { consistency: CONSISTENCY.STRONG, scope: SCOPE.PRIMARY };
/** A write that is done when the primary has it. */
export const PRIMARY_WRITE: RoutedRequest = { consistency: CONSISTENCY.WRITE, scope: SCOPE.PRIMARY, acks: 1 };

/** A body behind a prefix. */
export function routedPayload(request: RoutedRequest, body: Payload): Payload {
  const prefixBytes = routedRequestBytes(request);
  return {
    byteLength: prefixBytes + body.byteLength,
    write: (target, offset) => {
      writeRoutedRequest(target, offset, request);
      body.write(target, offset + prefixBytes);
    },
  };
}

/**
 * Decodes the body of a reply that must be complete.
 *
 * @throws {ShardloomError} `ERR_STALE_REPLICA` when the shard left vshards out.
 */
export function readComplete<T>(frame: ReplyFrame, decode: (body: ReplyFrame) => T): T {
  const { refused, byteLength } = readRoutedReply(frame, frame.offset, frame.length);
  if (refused.length > 0) {
    throw new ShardloomError(
      "ERR_STALE_REPLICA",
      `Cannot use reply as it must be complete: ${refused.length} vshards were left out`,
      { details: { refused } },
    );
  }
  const { bytes, i32, f32, f64, offset, length, serviceUs, queueUs } = frame;
  return decode({
    bytes,
    i32,
    f32,
    f64,
    offset: offset + byteLength,
    length: length - byteLength,
    serviceUs,
    queueUs,
  });
}
