/**
 * The bytes of a file, plain or gzip (told by magic, not by name), pulled in blocks.
 *
 * Invariant: nothing is read before it is asked for, and at most one block more than the largest single request is
 * held. A gzip stream that ends early is `ERR_TRUNCATED`, one that does not decode is `ERR_CORRUPT`.
 */
import { createReadStream, type ReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { pipeline, type Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { invalidArgument, ShardloomError } from "../errors.ts";

const BLOCK_BYTES = 128 * 1024;

export class ByteSource implements AsyncDisposable {
  readonly path: string;
  /** Size of the file in bytes, compressed when it is. */
  readonly byteLength: number;
  readonly compressed: boolean;
  readonly #file: ReadStream;
  readonly #stream: Readable;
  readonly #blocks: AsyncIterator<Buffer>;
  #buffer = new Uint8Array(0);
  #start = 0;
  #end = 0;

  private constructor(path: string, byteLength: number, compressed: boolean) {
    this.path = path;
    this.byteLength = byteLength;
    this.compressed = compressed;
    this.#file = createReadStream(path, { highWaterMark: BLOCK_BYTES });
    // The callback is only there because pipeline wants one: an error of either stream reaches the iterator below.
    this.#stream = compressed
      ? pipeline(this.#file, createGunzip({ chunkSize: BLOCK_BYTES }), () => undefined)
      : this.#file;
    // A block that is being decoded while the source is closed may still fail; nobody waits for it any more.
    this.#stream.on("error", () => undefined);
    this.#blocks = this.#stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  /**
   * Opens a regular file.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` if `path` is no readable regular file.
   */
  static async open(path: string): Promise<ByteSource> {
    try {
      await using handle = await open(path, "r");
      const stats = await handle.stat();
      if (!stats.isFile()) throw invalidArgument("open file", "path", "a regular file", path);
      const { bytesRead, buffer } = await handle.read(new Uint8Array(2), 0, 2, 0);
      return new ByteSource(path, stats.size, bytesRead === 2 && buffer[0] === 0x1f && buffer[1] === 0x8b);
    } catch (cause) {
      if (ShardloomError.is(cause)) throw cause;
      const message = `Cannot open file as path must be a readable file: current value is ${JSON.stringify(path)}`;
      throw new ShardloomError("ERR_INVALID_ARGUMENT", message, { details: { file: path }, cause });
    }
  }

  /** Bytes that can be taken without waiting. */
  get available(): number {
    return this.#end - this.#start;
  }

  /** Bytes of the file read so far, compressed when it is; runs at most a few blocks ahead of what was taken. */
  get bytesRead(): number {
    return this.#file.bytesRead;
  }

  /** Waits until `byteLength` bytes are available; false when the file ends before. */
  async fill(byteLength: number): Promise<boolean> {
    while (this.available < byteLength) {
      const block = await this.#next();
      if (block === undefined) return false;
      this.#append(block);
    }
    return true;
  }

  /** Looks at up to `byteLength` of the available bytes. Valid until the next `fill`. */
  peek(byteLength: number): Uint8Array {
    return this.#buffer.subarray(this.#start, Math.min(this.#start + byteLength, this.#end));
  }

  /** Takes bytes that are available. Valid until the next `fill`. */
  take(byteLength: number): Uint8Array {
    const bytes = this.peek(byteLength);
    this.#start += bytes.length;
    return bytes;
  }

  /** Closes the file. May be called twice. */
  async close(): Promise<void> {
    this.#stream.destroy();
    this.#file.destroy();
    await this.#blocks.return?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #next(): Promise<Buffer | undefined> {
    try {
      const { value, done } = await this.#blocks.next();
      return done === true ? undefined : value;
    } catch (cause) {
      const { code: system, message } = cause as NodeJS.ErrnoException;
      // zlib's words: Z_BUF_ERROR for a stream that ends early, Z_DATA_ERROR for one that does not decode.
      const code = system === "Z_BUF_ERROR" ? "ERR_TRUNCATED" : "ERR_CORRUPT";
      const options = { details: { file: this.path, value: system ?? message }, cause };
      throw new ShardloomError(code, `Cannot read ${this.path}: ${message}`, options);
    }
  }

  #append(block: Uint8Array): void {
    const kept = this.available;
    if (kept === 0) {
      this.#buffer = block as Uint8Array<ArrayBuffer>;
    } else {
      const room = this.#buffer.length - this.#end;
      if (room < block.length || !this.#isOwn) this.#grow(kept, block.length);
      this.#buffer.set(block, this.#end);
      this.#end += block.length;
      return;
    }
    this.#isOwn = false;
    this.#start = 0;
    this.#end = block.length;
  }

  /** Whether the buffer is ours to write to; a block of the stream is not. */
  #isOwn = false;

  #grow(kept: number, more: number): void {
    // Twice what is needed: a long record made of many blocks is copied a bounded number of times.
    const grown = new Uint8Array((kept + more) * 2);
    grown.set(this.#buffer.subarray(this.#start, this.#end));
    this.#buffer = grown;
    this.#isOwn = true;
    this.#start = 0;
    this.#end = kept;
  }
}
