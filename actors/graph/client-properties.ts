/**
 * Properties of vertices, from a client to the shards that own them.
 *
 * Invariant: a list is checked whole before its first message; a message is taken whole or not at all.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { GRAPH_GET, GRAPH_SET } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import { askAgain, askShard, askWhenBuilt, type GraphHandle } from "./client-calls.ts";
import { plainRef } from "./graph-messages.ts";
import { placed } from "./load-errors.ts";
import type { GetReply, GetRequest, SetRequest } from "./property-messages.ts";
import { checkKey, hashOfKey, ownerOfHash, type VertexKey } from "./vertex-key.ts";
import { MAX_TEXT_BYTES, type PropertyColumns, type PropertyValue } from "./vertex-properties.ts";

/** Most vertices of one message. */
const MAX_ENTRIES = 1024;
const OVERHEAD_BYTES = 256;
const VALUE_BYTES = 9;

/** Values of one vertex by name; those that it does not have are left out. */
export type VertexPropertyValues = Readonly<Record<string, PropertyValue>>;

/** Sets properties of vertices. @returns of how many */
export async function setVertexProperties(
  handle: GraphHandle,
  keys: ArrayLike<VertexKey>,
  columns: PropertyColumns,
  options: CallOptions,
): Promise<number> {
  for (const [name, values] of Object.entries(columns)) checkColumn(handle, name, values, keys.length);
  const { collection, coordinator } = handle;
  const room = coordinator.maxBodyBytes - OVERHEAD_BYTES;
  let done = 0;
  for (const [shard, places] of placesOf(handle, "set properties", keys).entries()) {
    let part: number[] = [];
    let bytes = 0;
    const flush = async (): Promise<void> => {
      if (part.length === 0) return;
      const mine = part;
      const request: SetRequest = {
        collection,
        keys: mine.map((at) => keys[at] as VertexKey),
        columns: Object.fromEntries(
          Object.entries(columns).map(([name, values]) => [name, mine.map((at) => values[at])]),
        ),
      };
      part = [];
      bytes = 0;
      const set = (): Promise<number> => askShard<number>(handle, shard, GRAPH_SET, request, options);
      done += await placed(mine, () => askWhenBuilt(handle, options, set));
    };
    for (const at of places) {
      const size = Object.values(columns).reduce((sum, values) => sum + sizeOf(values[at]), sizeOf(keys[at]));
      if (part.length === MAX_ENTRIES || bytes + size > room) await flush();
      part.push(at);
      bytes += size;
    }
    await flush();
  }
  return done;
}

/**
 * Reads properties of vertices.
 *
 * @param through A shard that is asked for all of them, whichever owns them, and answers with what its ghosts know. @default the owners are asked
 * @returns in the order of the keys; undefined for what is not in the graph
 */
export async function getVertexProperties(
  live: GraphHandle,
  keys: readonly VertexKey[],
  names: readonly string[],
  options: CallOptions,
  through?: number,
): Promise<(VertexPropertyValues | undefined)[]> {
  const handle = { ...live };
  for (const name of names) checkName(handle, name);
  const answers: (VertexPropertyValues | undefined)[] = new Array(keys.length).fill(undefined);
  const read = async (shard: number, places: readonly number[]): Promise<void> => {
    for (let next = 0; next < places.length; ) {
      const part = places.slice(next, next + MAX_ENTRIES);
      const { collection } = handle;
      const { lists } = await askAgain(handle, () => {
        const roots = through === undefined ? {} : { roots: handle.roots().map(plainRef) };
        const request: GetRequest = { collection, names, keys: part.map((at) => keys[at] as VertexKey), ...roots };
        return askShard<GetReply>(handle, shard, GRAPH_GET, request, options);
      });
      if (lists.length === 0)
        throw new ShardloomError(
          "ERR_RECORD_TOO_LARGE",
          "Cannot read properties as those of one vertex do not fit a reply",
        );
      for (const [at, list] of lists.entries()) {
        const entries = list?.flatMap((value, name) => (value === null ? [] : [[names[name], value] as const]));
        answers[part[at] as number] = entries && Object.fromEntries(entries);
      }
      next += lists.length;
    }
  };
  if (through !== undefined) await read(through, [...keys.keys()]);
  else await Promise.all(placesOf(handle, "read properties", keys).map((places, shard) => read(shard, places)));
  return answers;
}

function placesOf({ options }: GraphHandle, action: string, keys: ArrayLike<VertexKey>): number[][] {
  const places = Array.from({ length: options.shards }, (): number[] => []);
  for (let at = 0; at < keys.length; at++) {
    const key = checkKey(action, "vertex", keys[at], at);
    (places[ownerOfHash(hashOfKey(key), options.shards)] as number[]).push(at);
  }
  return places;
}

function checkName({ options }: GraphHandle, name: string): void {
  if (Object.hasOwn(options.vertexProperties, name)) return;
  const known = Object.keys(options.vertexProperties).join(", ");
  throw invalidArgument("use properties", "property", `one of ${known}`, name);
}

function checkColumn(handle: GraphHandle, name: string, values: PropertyColumns[string], count: number): void {
  checkName(handle, name);
  const kind = handle.options.vertexProperties[name];
  if (values.length !== count) throw invalidArgument("set properties", name, `of one length, ${count}`, values.length);
  for (const [at, value] of values.entries()) {
    if (value === null || value === undefined) continue;
    const isGood =
      kind === "number"
        ? Number.isFinite(value)
        : typeof value === "string" && new TextEncoder().encode(value).length <= MAX_TEXT_BYTES;
    if (isGood) continue;
    const rule = kind === "number" ? "a finite number" : `text of at most ${MAX_TEXT_BYTES} bytes`;
    throw invalidArgument("set properties", `${name} of vertex ${at}`, rule, value);
  }
}

function sizeOf(value: PropertyValue | null | undefined): number {
  return VALUE_BYTES + (typeof value === "string" ? 3 * value.length : 0);
}
