/**
 * `collections.json`: which collections of a directory are open, and how often those of a name were dropped.
 *
 * Invariant: what a call was told is durable, and calls take effect in the order in which they are made. A collection is listed before any
 * shard logs anything of it, and no longer listed before any shard drops it: what a log says of a collection that is not listed is of one that
 * was dropped, or never acknowledged.
 */
import { ShardloomError } from "../errors.ts";
import type { Disk } from "../runtime/disk.ts";
import { readCheckedJson, writeCheckedJson } from "./checked-json.ts";

/** Name of the file. */
export const COLLECTIONS_FILE = "collections.json";
const FORMAT = 1;

/** A collection that is open. */
export interface KeptCollection {
  readonly engine: string;
  readonly name: string;
  readonly collection: number;
  /** How often collections of the name had been dropped when it was made. */
  readonly generation: number;
  /** As the engine recovers it from, see `RecoverTask`. Plain JSON. */
  readonly options: unknown;
}

/** How often collections of a name were dropped. */
export interface KeptGeneration {
  readonly engine: string;
  readonly name: string;
  readonly generation: number;
}

/** What the file says. */
export interface KeptCollections {
  readonly collections: readonly KeptCollection[];
  readonly generations: readonly KeptGeneration[];
}

const NONE: KeptCollections = { collections: [], generations: [] };

/** The collections of one directory. One object per directory. */
export class CollectionStore {
  readonly #disk: Disk;
  #kept: KeptCollections;
  /** The change under way; the next one begins when it has ended, well or not. */
  #tail: Promise<unknown> = Promise.resolve();

  private constructor(disk: Disk, kept: KeptCollections) {
    this.#disk = disk;
    this.#kept = kept;
  }

  /**
   * @param isNew Whether the directory is being made: then the file is too. In any other one it must be there, or everything would be dropped.
   * @throws {ShardloomError} `ERR_CORRUPT`, `ERR_UNSUPPORTED_FORMAT`, and as disks do.
   */
  static async open(disk: Disk, isNew: boolean): Promise<CollectionStore> {
    if (!isNew) return new CollectionStore(disk, await readCollections(disk));
    await writeCollections(disk, NONE);
    return new CollectionStore(disk, NONE);
  }

  /** Everything, as it is durable. */
  get kept(): KeptCollections {
    return this.#kept;
  }

  /** Lists a collection. */
  add(collection: KeptCollection): Promise<void> {
    return this.#change(({ collections, generations }) => ({
      collections: [...collections.filter((other) => !isOf(other, collection)), collection],
      generations: withGeneration(generations, collection),
    }));
  }

  /** Takes a collection off the list. @param next Generation of the next collection of that name */
  remove(next: KeptGeneration): Promise<void> {
    return this.#change(({ collections, generations }) => ({
      collections: collections.filter((other) => !isOf(other, next)),
      generations: withGeneration(generations, next),
    }));
  }

  #change(apply: (kept: KeptCollections) => KeptCollections): Promise<void> {
    const change = this.#tail.then(async () => {
      const next = apply(this.#kept);
      await writeCollections(this.#disk, next);
      this.#kept = next;
    });
    this.#tail = change.catch(() => undefined); // who asked for it is told
    return change;
  }
}

/** @throws {ShardloomError} `ERR_CORRUPT` also when there is no such file */
export async function readCollections(disk: Disk): Promise<KeptCollections> {
  const content = await readCheckedJson(disk, COLLECTIONS_FILE, FORMAT);
  if (content !== undefined) return checkedCollections(content);
  throw new ShardloomError("ERR_CORRUPT", `Cannot open directory as its ${COLLECTIONS_FILE} is missing`, {
    details: { path: COLLECTIONS_FILE },
  });
}

export function writeCollections(disk: Disk, kept: KeptCollections): Promise<void> {
  return writeCheckedJson(disk, COLLECTIONS_FILE, FORMAT, kept);
}

/** Checks what was read. @throws {ShardloomError} `ERR_CORRUPT` */
export function checkedCollections(content: unknown): KeptCollections {
  const { collections, generations } = (content ?? {}) as KeptCollections;
  const isWhole =
    Array.isArray(collections) &&
    Array.isArray(generations) &&
    [...collections, ...generations].every(isNamed) &&
    collections.every(({ collection }) => Number.isSafeInteger(collection));
  if (isWhole) return { collections, generations };
  throw new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read ${COLLECTIONS_FILE} as it must list collections with engine, name, id and generation`,
    { details: { path: COLLECTIONS_FILE } },
  );
}

function isNamed(value: unknown): boolean {
  const { engine, name, generation } = (value ?? {}) as Partial<KeptGeneration>;
  return typeof engine === "string" && typeof name === "string" && Number.isSafeInteger(generation);
}

function isOf(one: KeptGeneration, other: KeptGeneration): boolean {
  return one.engine === other.engine && one.name === other.name;
}

/** Generations never go back; those of names of which nothing was dropped need no entry. */
function withGeneration(generations: readonly KeptGeneration[], next: KeptGeneration): readonly KeptGeneration[] {
  const { engine, name } = next;
  const known = generations.find((other) => isOf(other, next))?.generation ?? 0;
  const others = generations.filter((other) => !isOf(other, next));
  const generation = Math.max(known, next.generation);
  return generation === 0 ? others : [...others, { engine, name, generation }];
}
