/**
 * Messages from a client to the shards of one graph.
 *
 * Invariant: every call ends, in an answer or a typed error; none is repeated here but questions, and what a shard has refused before it
 * changed anything: as it has not been told where its peers are, or is building its adjacency.
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { ReplyFrame } from "../../src/routing/requester.ts";
import { PRIORITY, VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { GRAPH_MEET } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import type { Coordinator } from "../coordinator.ts";
import type { ShardAccount } from "../shard-account.ts";
import type { KeptGraph } from "./graph-engine.ts";
import { decodeBody, type EncodedList, encodeBody, type Frame, payloadOf, plainRef } from "./graph-messages.ts";
import { movedAway } from "./graph-refusals.ts";
import type { LostPart } from "./lost-part.ts";

/** How long a list waits for a shard that builds, in all and between two looks. */
const MAX_BUILD_MS = 10_000;
const BUILD_PAUSE_MS = 5;
/** How often a question is put while shards change or workers are replaced, and the pause before each but the first two. */
const QUESTIONS = 8;
const QUESTION_PAUSE_MS = 20;
const AGAIN: ReadonlySet<string> = new Set(["ERR_STALE_EPOCH", "ERR_REGION_ACCESS", "ERR_WORKER_LOST"]);

/** Counts requests, and of questions how often one is put. */
interface QuestionAccount extends ShardAccount {
  readonly put?: (again: boolean) => void;
}

/** What a handle on a graph is made of. */
export interface GraphHandle {
  readonly name: string;
  readonly collection: number;
  readonly options: KeptGraph;
  readonly coordinator: Coordinator;
  /** Roots of the present workers, in the order of the members. */
  readonly roots: () => readonly RegionRef[];
  /** Throws when the graph was dropped or the cluster closed. */
  readonly assertOpen: () => void;
  /** What a shard has left that was given up: it is asked nothing. @default all have workers */
  readonly lost?: LostPart | undefined;
  /** Counts what is asked, and of questions how often. @default nobody does */
  readonly account?: QuestionAccount | undefined;
}

/** A handle on a graph where it lies now, which is of no use once it lies elsewhere. */
export function asOfNow(live: GraphHandle): GraphHandle {
  const { collection } = live;
  return {
    ...live,
    assertOpen() {
      live.assertOpen();
      if (live.collection !== collection) throw movedAway(live.name);
    },
  };
}

/** Asks one shard. @param place As in {@link KeptGraph.members} */
export function askShard<T>(
  { coordinator, account, options: { members } }: GraphHandle,
  place: number,
  type: number,
  body: unknown,
  options?: CallOptions,
  decode: (frame: Frame) => T = decodeBody,
): Promise<T> {
  const shard = members[place] as number;
  const bytes = encodeBody(body);
  const payload = payloadOf(bytes);
  if (account === undefined)
    return coordinator.ask(shard, type, VSHARD_LISTED, payload, decode, options, PRIORITY.BULK);
  account.sent(shard, bytes.length);
  const counted = (frame: ReplyFrame): T => {
    account.answered(shard, frame);
    return decode(frame);
  };
  return coordinator.ask(shard, type, VSHARD_LISTED, payload, counted, options, PRIORITY.BULK);
}

/** Asks all shards of the graph that have workers, and gives their answers in order. The first failure ends the other calls too: shards may be waiting for the one that has failed. */
export async function askAll<T>(
  handle: GraphHandle,
  type: number,
  body: (shard: number) => unknown,
  options: CallOptions = {},
): Promise<T[]> {
  const { signal } = options;
  // One for each call, as a signal with many listeners draws a warning.
  const places = [...handle.options.members.keys()].filter((place) => place !== handle.lost?.place);
  const enders = places.map((place) => ({ place, ender: new AbortController() }));
  const end = (): void => {
    for (const { ender } of enders) ender.abort(signal?.reason);
  };
  let failure: unknown;
  signal?.addEventListener("abort", end, { once: true });
  if (signal?.aborted === true) end();
  const calls = enders.map(({ place, ender }) =>
    askShard<T>(handle, place, type, body(place), { ...options, signal: ender.signal }).catch((error: unknown) => {
      failure ??= error;
      end();
      return undefined;
    }),
  );
  const answers = await Promise.all(calls);
  signal?.removeEventListener("abort", end);
  if (failure !== undefined) throw ShardloomError.from(failure);
  return answers as T[];
}

/** Sends a list to one shard. @returns what it counted */
export async function sendList(
  handle: GraphHandle,
  shard: number,
  type: number,
  list: EncodedList,
  options?: CallOptions,
): Promise<number> {
  const { coordinator } = handle;
  const member = handle.options.members[shard] as number;
  const send = (): Promise<number> =>
    coordinator.ask(member, type, VSHARD_LISTED, list, (frame) => decodeBody<number>(frame), options, PRIORITY.BULK);
  return askWhenBuilt(handle, options, async () => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await send();
      } catch (error) {
        if (attempt === QUESTIONS || !ShardloomError.is(error) || error.code !== "ERR_REGION_ACCESS") throw error;
      }
      // Of a peer that was replaced just now the way is not known at once.
      await coordinator.pause(QUESTION_PAUSE_MS * (attempt - 1));
      const body = { collection: handle.collection, roots: handle.roots().map(plainRef) };
      await askShard(handle, shard, GRAPH_MEET, body, options);
    }
  });
}

/** Puts a question that changes nothing, again when a shard has changed or its worker was lost meanwhile. */
export async function askAgain<T>({ coordinator, account }: GraphHandle, question: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    account?.put?.(attempt > 1);
    try {
      return await question();
    } catch (error) {
      if (attempt === QUESTIONS || !ShardloomError.is(error) || !AGAIN.has(error.code)) throw error;
      await coordinator.pause(QUESTION_PAUSE_MS * (attempt - 1));
    }
  }
}

/** Makes a call, again while the shard builds. */
export async function askWhenBuilt<T>(
  { coordinator }: GraphHandle,
  options: CallOptions | undefined,
  call: () => Promise<T>,
): Promise<T> {
  const endMs = coordinator.nowMs() + Math.min(MAX_BUILD_MS, options?.timeoutMs ?? MAX_BUILD_MS);
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const mayWait = ShardloomError.is(error) && isBuilding(error) && options?.signal?.aborted !== true;
      if (!mayWait || coordinator.nowMs() >= endMs) throw error;
      await coordinator.pause(BUILD_PAUSE_MS);
    }
  }
}

/** A shard takes nothing while it builds, which ends by itself; while runs compute, which may take long, the caller decides. */
function isBuilding({ code, details }: ShardloomError): boolean {
  return code === "ERR_OVERLOADED" && details["runs"] === 0;
}
