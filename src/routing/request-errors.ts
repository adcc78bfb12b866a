/** The errors with which a requester refuses or ends requests. */
import { ShardloomError } from "../errors.ts";
import { messageTypeName } from "../wire/message-types.ts";

/** The payload does not fit into a record. */
export function tooLarge(type: number, byteLength: number, limit: number): ShardloomError {
  return new ShardloomError(
    "ERR_RECORD_TOO_LARGE",
    `Cannot send ${messageTypeName(type)} as its payload must be at most ${limit} bytes: current value is ${byteLength}`,
    { details: { byteLength, limit } },
  );
}

/** As many messages wait for credit or room as may. */
export function tooManyWait(type: number, shard: number, limit: number): ShardloomError {
  return new ShardloomError(
    "ERR_OVERLOADED",
    `Cannot send ${messageTypeName(type)} to shard ${shard} as at most ${limit} messages may wait for credit`,
    { details: { shard, queued: limit } },
  );
}

/** The deadline passed before the reply came. */
export function deadlinePassed(type: number, shard: number, sent: boolean): ShardloomError {
  return new ShardloomError(
    "ERR_TIMEOUT",
    `Cannot finish ${messageTypeName(type)} on shard ${shard} before its deadline`,
    {
      details: { shard, type: messageTypeName(type), sent },
    },
  );
}
