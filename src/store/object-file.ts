/**
 * The content of a file that is kept in blocks: what was written and is not kept yet is in memory, up to a limit.
 *
 * Invariant: one operation at a time, in their order. Blocks that are kept do not change: {@link ObjectFile.upload} keeps changed ones under new
 * names, and says which names are no longer needed, once a table with the new ones is kept.
 */
import { BLOCK_BYTES, blockName, type StoredFile } from "./object-names.ts";

/** Changed bytes after which a write does not return before they are kept. */
const MAX_CHANGED_BYTES: number = 8 * BLOCK_BYTES;

/** Where blocks are kept. Throws as disks do. */
export interface Blocks {
  put(name: string, bytes: Uint8Array): Promise<void>;
  get(name: string): Promise<Uint8Array>;
  /** A name is not needed any more when the table of now is kept. */
  forget(name: string): void;
  /** A file's table entry is another one than before. */
  changed(): void;
}

export class ObjectFile {
  readonly id: string;
  /** How many have it open. */
  users = 0;
  /** Whether it has a name. */
  isNamed = true;
  readonly #blocks: Blocks;
  #size: number;
  /** Versions, see {@link StoredFile}. */
  #versions: number[];
  /** The highest version that was given out. */
  #newest: number;
  /** By index, whole blocks. */
  readonly #changed: Map<number, Uint8Array> = new Map();
  /** The block that was read last. */
  #read: { readonly name: string; readonly bytes: Uint8Array } | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** @param leastVersion No version up to this is given out: another writer of the same file may have. */
  constructor(blocks: Blocks, { id, size, blocks: versions }: StoredFile, leastVersion: number) {
    this.id = id;
    this.#blocks = blocks;
    this.#size = size;
    this.#versions = [...versions];
    this.#newest = Math.max(leastVersion, ...versions);
  }

  /** As a table is to have it: of what was changed since {@link upload}, nothing but the size. */
  get stored(): StoredFile {
    return { id: this.id, size: this.#size, blocks: this.#versions };
  }

  get size(): number {
    return this.#size;
  }

  /** Runs an operation when those before it have ended. */
  inTurn<T>(run: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(run);
    this.#turn = done.catch(() => undefined); // whoever asked has the error
    return done;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const end = Math.min(this.#size, offset + length);
    if (end <= offset) return new Uint8Array(0);
    const bytes = new Uint8Array(end - offset);
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / BLOCK_BYTES);
      const from = at % BLOCK_BYTES;
      const to = Math.min(BLOCK_BYTES, from + end - at);
      const block = this.#changed.get(index) ?? (await this.#kept(index));
      bytes.set(block.subarray(Math.min(from, block.length), Math.min(to, block.length)), at - offset);
      at += to - from;
    }
    return bytes;
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const at = offset + done;
      const from = at % BLOCK_BYTES;
      const piece = bytes.subarray(done, done + BLOCK_BYTES - from);
      const block = await this.#changeable(Math.floor(at / BLOCK_BYTES), piece.length === BLOCK_BYTES);
      block.set(piece, from);
      done += piece.length;
      this.#size = Math.max(this.#size, at + piece.length);
      this.#blocks.changed();
      if (this.#changed.size * BLOCK_BYTES >= MAX_CHANGED_BYTES) await this.upload();
    }
  }

  async truncate(size: number): Promise<void> {
    const count = Math.ceil(size / BLOCK_BYTES);
    if (size < this.#size && size % BLOCK_BYTES !== 0)
      (await this.#changeable(count - 1, false)).fill(0, size % BLOCK_BYTES);
    for (const index of this.#changed.keys()) if (index >= count) this.#changed.delete(index);
    for (let index = count; index < this.#versions.length; index++) this.#forget(index);
    this.#versions.length = Math.min(this.#versions.length, count);
    this.#size = size;
    this.#blocks.changed();
  }

  /** Nobody has it open: what was only read is read again by who comes next. */
  rest(): void {
    this.#read = undefined;
  }

  /** Keeps what was changed. */
  async upload(): Promise<void> {
    for (const [index, block] of this.#changed) {
      const version = ++this.#newest;
      const used = Math.min(BLOCK_BYTES, this.#size - index * BLOCK_BYTES);
      const name = blockName(this.id, index, version);
      try {
        await this.#blocks.put(name, block.subarray(0, used));
      } catch (error) {
        this.#blocks.forget(name); // it may be there, or come to be
        throw error;
      }
      this.#forget(index);
      while (this.#versions.length < index) this.#versions.push(0);
      this.#versions[index] = version;
      this.#changed.delete(index);
      this.#blocks.changed();
    }
  }

  #forget(index: number): void {
    const version = this.#versions[index] ?? 0;
    if (version > 0) this.#blocks.forget(blockName(this.id, index, version));
  }

  async #kept(index: number): Promise<Uint8Array> {
    const version = this.#versions[index] ?? 0;
    if (version === 0) return new Uint8Array(0);
    const name = blockName(this.id, index, version);
    if (this.#read?.name !== name) this.#read = { name, bytes: await this.#blocks.get(name) };
    return this.#read.bytes;
  }

  /** A whole block that can be written to. @param anew Whether all of it will be. */
  async #changeable(index: number, anew: boolean): Promise<Uint8Array> {
    const known = this.#changed.get(index);
    if (known !== undefined) return known;
    const block = new Uint8Array(BLOCK_BYTES);
    if (!anew) block.set(await this.#kept(index));
    this.#changed.set(index, block);
    return block;
  }
}
