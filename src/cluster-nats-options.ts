/**
 * The option `nats` of a cluster: where its shards are kept in NATS JetStream, checked and filled.
 *
 * Invariant: no message shows a password or a token.
 */
import { invalidArgument } from "./errors.ts";
import type { NatsOptions } from "./runtime/nats.ts";
import type { ServerWaiting } from "./runtime/patience.ts";
import type { NatsPlace } from "./store/nats-shard.ts";

/** Where a cluster keeps its shards in NATS: the same for all its nodes. */
export interface NatsStorage extends Pick<NatsOptions, "servers" | "user" | "password" | "token" | "tls"> {
  /** What the names of its streams and buckets begin with: 1 to 64 letters, digits, `-` and `_`. @default the cluster's name, with one node "shardloom" */
  readonly store?: string;
  /** Servers that keep each message and object: 1, 3 or 5. Only counts when something is made. @default 1 */
  readonly replicas?: number;
  /** How long a call to the servers may take before writes fail, in ms, `100..60000`; what failed is tried on. @default 5000 */
  readonly timeoutMs?: number;
  /** The start waits, as the servers do not answer yet: told after each try, until `startTimeoutMs` is over. @default nobody is told */
  readonly onWaiting?: (waiting: ServerWaiting) => void;
}

const KNOWN: readonly string[] = [
  "servers",
  "user",
  "password",
  "token",
  "tls",
  "store",
  "replicas",
  "timeoutMs",
  "onWaiting",
];
const NAME = /^[\w-]{1,64}$/;
const REPLICAS: readonly unknown[] = [1, 3, 5];

/** @param cluster Name of the cluster, of several nodes. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming option, rule and value. */
export function resolveNatsStorage(given: NatsStorage, cluster: string | undefined): NatsPlace {
  if (typeof given !== "object" || given === null) throw refuse("", "an object with servers", given);
  for (const name of Object.keys(given)) if (!KNOWN.includes(name)) throw refuse("", `${KNOWN.join(", ")}`, name);
  const { store = cluster?.replaceAll(".", "_") ?? "shardloom", replicas = 1, timeoutMs = 5_000, ...rest } = given;
  const { onWaiting, ...place } = rest; // which other threads have no use for
  const { servers } = place as { servers: unknown };
  if (!Array.isArray(servers) || servers.length === 0 || !servers.every((server) => typeof server === "string"))
    throw refuse(".servers", "a list of addresses nats://host:port", servers);
  if (typeof store !== "string" || !NAME.test(store))
    throw refuse(".store", "1 to 64 letters, digits, hyphens and underscores", store);
  if (!REPLICAS.includes(replicas)) throw refuse(".replicas", "1, 3 or 5", replicas);
  if (!(Number.isInteger(timeoutMs) && timeoutMs >= 100 && timeoutMs <= 60_000))
    throw refuse(".timeoutMs", "an integer between 100 and 60000", timeoutMs);
  if (onWaiting !== undefined && typeof onWaiting !== "function") throw refuse(".onWaiting", "a function", onWaiting);
  return { ...place, store, replicas, timeoutMs };
}

function refuse(name: string, rule: string, value: unknown): Error {
  return invalidArgument("start cluster", `nats${name}`, rule, value);
}
