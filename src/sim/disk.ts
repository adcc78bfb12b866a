/**
 * The disk of a simulated node: a page cache over a medium, in world time, with everything that disks do to what is not synced and to what is.
 *
 * Invariant: it belongs to the node's name and outlives its processes. A process has it by {@link SimDisk.start} or {@link SimDisk.mount}; when that
 * process is gone, its calls have no effect and never settle. Without faults it is a disk as `test/conformance/disk.ts` has it, and a crash loses nothing.
 *
 * Faults, drawn at site "<node>/disk": at a crash, for every unsynced write and name `disk-lost-write`, and for every unsynced write
 * `disk-torn`; at a sync `disk-sync-failed`, and for every unsynced write `disk-misdirected`; at a read `disk-bit-rot`. Timed, with that site as
 * target: `disk-full`, `disk-slow`, `disk-read-only`, see {@link SimDisk.begin}. At a worker's operation, at site "n0/w1": `worker-io-crash`.
 * Source: TigerBeetle `testing/storage.zig`, turmoil-fs. Divergence: a read never fails; damage is for the reader's checksum to see.
 */
import { crc32 } from "../runtime/checksum.ts";
import { type Disk, diskError } from "../runtime/disk.ts";
import { createSeededRandom, type Random } from "../runtime/random.ts";
import { OpenDirectories } from "./disk-directory.ts";
import { NameTable } from "./disk-names.ts";
import { createProcessDisk, type DiskCost } from "./disk-process.ts";
import {
  type CachedFile,
  KEPT,
  lostFate,
  type PendingWrite,
  SECTOR_BYTES,
  tornFate,
  type WriteFate,
} from "./disk-sectors.ts";
import { AttachedThread, type DiskThread, type OperationHost } from "./disk-threads.ts";
import type { FaultyService } from "./fault-driver.ts";
import { FAULT_TABLE } from "./fault-table.ts";
import type { DrawnFault, FaultInjector, TimedFault } from "./fault-types.ts";
import type { Loop } from "./loop-types.ts";

/** What a simulated disk is made of. */
export interface SimDiskOptions {
  /** Name of the node. */
  readonly node: string;
  readonly loop: Loop;
  readonly faults: FaultInjector;
  /** Bytes that files may hold together. @default no limit */
  readonly capacityBytes?: number;
  /** Two living workers of one process have changed files of one shard. */
  readonly onTwoWriters?: (where: string) => void;
}

/** Typical latencies in µs: reads and writes go to the cache, the others to the medium. */
const LATENCY_US: Readonly<Record<DiskCost, number>> = { cache: 8, medium: 400 };
/** One operation in so many meets a busy disk, and takes that many times longer. */
const TAIL = { oneIn: 64, factor: 20 } as const;
/** Unsynced writes of one file after which the kernel writes back by itself. */
const MAX_PENDING_WRITES = 4_096;

/** A process that has the disk. Its threads see the disk from its root. */
export interface DiskProcess {
  /** Its main thread's. */
  readonly disk: Disk;
  readonly directories: OpenDirectories;
  /** One more thread of it. */
  attach(thread: DiskThread): ThreadDisk;
}

/** The disk as one thread has it. */
export interface ThreadDisk {
  readonly disk: Disk;
  /** See {@link AttachedThread.detach}. */
  detach(): number;
}

/** The directory of a shard, in a path. */
const SHARD = /(?:^|\/)shards\/\d+\//;

/** Damage that the medium took: what a checksum has to find. */
export interface DiskDamage {
  readonly kind: "disk-misdirected" | "disk-bit-rot";
  readonly path: string;
  readonly offset: number;
  readonly timeUs: number;
}

/** The disk of one node. */
export class SimDisk implements FaultyService {
  readonly site: string;
  readonly #loop: Loop;
  readonly #faults: FaultInjector;
  readonly #latency: Random;
  readonly #capacityBytes: number;
  readonly #names: NameTable = new NameTable();
  readonly #damage: DiskDamage[] = [];
  readonly #host: OperationHost;
  readonly #onTwoWriters: ((where: string) => void) | undefined;
  /** The process that has it, and its threads. */
  #process: DiskProcess | undefined;
  #threads: AttachedThread[] = [];
  /** Who changed files of a shard last. */
  readonly #writers: Map<string, AttachedThread> = new Map();
  #fullUntilUs = 0;
  #readOnlyUntilUs = 0;
  #slow: { readonly untilUs: number; readonly factor: number } = { untilUs: 0, factor: 1 };
  /** Whether writes and changes of names fail with `ERR_READ_ONLY`, as of a disk that the kernel has remounted. */
  readOnly = false;

  constructor(options: SimDiskOptions) {
    this.site = `${options.node}/disk`;
    this.#loop = options.loop;
    this.#faults = options.faults;
    this.#latency = options.loop.stream(this.site);
    this.#capacityBytes = options.capacityBytes ?? Number.POSITIVE_INFINITY;
    this.#onTwoWriters = options.onTwoWriters;
    this.#host = {
      site: this.site,
      loop: this.#loop,
      faults: this.#faults,
      fates: options.loop.stream(`${this.site}/fates`),
      latencyUs: (cost) => {
        const untilAnswerUs = this.#latencyUs(cost);
        return { untilAnswerUs, untilEffectUs: Math.floor(untilAnswerUs * this.#latency.float()) };
      },
    };
  }

  /** What has been damaged so far. */
  get damage(): readonly DiskDamage[] {
    return this.#damage;
  }

  /**
   * Gives the disk to a new process. The one that had it is gone; what it wrote is still in the cache.
   *
   * @param main Its first thread. @default one that the world's loop answers
   */
  start(main: DiskThread = { name: this.site, loop: this.#loop }): DiskProcess {
    for (const thread of this.#threads) thread.lose();
    const threads: AttachedThread[] = [];
    this.#threads = threads;
    const attach = (thread: DiskThread): ThreadDisk => {
      const attached = new AttachedThread(this.#host, thread);
      if (this.#threads === threads) threads.push(attached);
      else attached.lose(); // a thread of a process that is gone
      const isWorker = thread.die !== undefined;
      return { disk: this.#diskOf(attached, isWorker), detach: () => attached.detach() };
    };
    const { disk } = attach(main);
    this.#process = { disk, attach, directories: new OpenDirectories(disk) };
    return this.#process;
  }

  /** As {@link SimDisk.start}, for a process of one thread. */
  mount(loop: Loop = this.#loop): Disk {
    return this.start({ name: this.site, loop }).disk;
  }

  /** As one more thread of the process that has it; of a new one when none has. */
  attach(loop: Loop = this.#loop): Disk {
    const process = this.#process ?? this.start({ name: this.site, loop });
    return process.attach({ name: this.site, loop }).disk;
  }

  #diskOf(thread: AttachedThread, isWorker: boolean): Disk {
    return createProcessDisk({
      names: this.#names,
      perform: (operation, path, cost, effect) => thread.perform(operation, path, cost, effect),
      checkWritable: (operation, path) => {
        this.#checkWritable(operation, path);
        if (isWorker) this.#checkWriter(thread, path);
      },
      read: (file, path, offset, length) => this.#read(file, path, offset, length),
      write: (file, path, offset, bytes) => this.#write(file, path, offset, bytes),
      sync: (file, path) => this.#sync(file, path),
    });
  }

  /** The process is killed: what it wrote stays in the cache, and some of what it was about to do happens. */
  kill(): void {
    this.#loop.trace("disk-kill", this.site);
    for (const thread of this.#threads) thread.kill();
    this.#threads = [];
    this.#process = undefined;
  }

  /**
   * The power fails: the process is gone, and of what was not synced only what the faults leave.
   *
   * @param unsynced `lost`: nothing. @default what the faults leave
   */
  crash(unsynced: "drawn" | "lost" = "drawn"): void {
    const isLost = unsynced === "lost";
    for (const thread of this.#threads) thread.lose();
    this.#threads = [];
    this.#process = undefined;
    this.#loop.trace("disk-crash", this.site);
    this.#names.crash(() => !isLost && this.#faults.draw("disk-lost-write", this.site) === undefined);
    const fateOf = (write: PendingWrite): WriteFate => (isLost ? lostFate(write, 0) : this.#fateAtCrash(write));
    for (const [, file] of this.#names.files()) file.crash(fateOf);
  }

  /** A timed fault on this disk begins: full, slow or read-only. @returns whether it is one of those */
  begin(fault: TimedFault): boolean {
    const untilUs = this.#loop.nowUs + fault.durationMs * 1000;
    if (fault.kind === "disk-full") this.#fullUntilUs = untilUs;
    else if (fault.kind === "disk-read-only") this.#readOnlyUntilUs = untilUs;
    else if (fault.kind === "disk-slow")
      this.#slow = { untilUs, factor: 1 + fault.size * FAULT_TABLE["disk-slow"].scale };
    else return false;
    return true;
  }

  /** Neither full nor slow nor read-only any more. */
  heal(): void {
    this.#fullUntilUs = 0;
    this.#readOnlyUntilUs = 0;
    this.#slow = { untilUs: 0, factor: 1 };
  }

  /** Every file as reads see it, by path. */
  snapshot(): ReadonlyMap<string, Uint8Array> {
    return new Map(this.#names.files().map(([path, file]) => [path, file.read(0, file.size)]));
  }

  /** A number for {@link SimDisk.snapshot}: equal content and paths, equal number. */
  hash(): number {
    let hash = 0;
    for (const [path, bytes] of this.snapshot()) {
      hash = crc32(new TextEncoder().encode(`${path}\0${bytes.length}\0`), hash);
      hash = crc32(bytes, hash);
    }
    return hash;
  }

  #latencyUs(cost: DiskCost): number {
    const typical = LATENCY_US[cost] * (0.5 + this.#latency.float());
    const tail = this.#latency.float() * TAIL.oneIn < 1 ? TAIL.factor : 1;
    const slow = this.#loop.nowUs < this.#slow.untilUs ? this.#slow.factor : 1;
    return Math.ceil(typical * tail * slow);
  }

  #checkWritable(operation: string, path: string): void {
    if (this.readOnly || this.#loop.nowUs < this.#readOnlyUntilUs) throw diskError(operation, path, "EROFS");
    if (operation === "create file" && this.#loop.nowUs < this.#fullUntilUs) throw diskError(operation, path, "ENOSPC");
  }

  /** A shard has one worker at a time; what follows a dead one begins when nothing of that happens any more. */
  #checkWriter(thread: AttachedThread, path: string): void {
    const shard = SHARD.exec(path);
    if (shard === null) return;
    const place = path.slice(0, shard.index + shard[0].length);
    const before = this.#writers.get(place);
    this.#writers.set(place, thread);
    if (before === undefined || before === thread || !(before.alive && this.#threads.includes(before))) return;
    this.#onTwoWriters?.(`${place} on ${this.site}`);
  }

  #write(file: CachedFile, path: string, offset: number, bytes: Uint8Array): void {
    const growth = Math.max(0, offset + bytes.length - file.size);
    const room = growth === 0 ? 0 : this.#room(growth);
    const fits = room >= growth ? bytes.length : Math.max(0, bytes.length - (growth - room));
    file.write(offset, bytes.subarray(0, fits));
    if (file.pending.length > MAX_PENDING_WRITES) file.settle(() => KEPT, "keep");
    if (fits < bytes.length) throw diskError("write file", path, "ENOSPC");
  }

  /** How many of so many new bytes have room. */
  #room(growth: number): number {
    // A file system that is full finds room for a part at most.
    if (this.#loop.nowUs < this.#fullUntilUs) return Math.floor(growth * this.#latency.float());
    if (this.#capacityBytes === Number.POSITIVE_INFINITY) return growth;
    const used = this.#names.files().reduce((sum, [, { size }]) => sum + size, 0);
    return Math.min(growth, Math.max(0, this.#capacityBytes - used));
  }

  #sync(file: CachedFile, path: string): void {
    const failed = this.#faults.draw("disk-sync-failed", this.site);
    if (failed !== undefined) {
      const random = createSeededRandom(Math.floor(failed.size * 2 ** 32));
      const cache = random.float() < 0.5 ? "keep" : "evict";
      file.settle((write) => tornFate(write, random.float()), cache);
      throw diskError("sync file", path, "EIO");
    }
    const astray: {
      readonly write: PendingWrite;
      readonly sectors: readonly Uint8Array[];
      readonly fault: DrawnFault;
    }[] = [];
    file.settle((write) => {
      const fault = write.kind === "write" ? this.#faults.draw("disk-misdirected", this.site) : undefined;
      if (fault === undefined) return KEPT;
      astray.push({ write, sectors: file.contentOf(write), fault });
      return { keeps: () => false, keepsSize: true };
    }, "evict");
    for (const { write, sectors, fault } of astray) this.#misdirect(file, path, write, sectors, fault.size);
  }

  /** Sectors that were meant for one place are on the medium at another one, where there is one. */
  #misdirect(file: CachedFile, path: string, write: PendingWrite, sectors: readonly Uint8Array[], size: number): void {
    this.#damaged("disk-misdirected", path, write.first * SECTOR_BYTES);
    const places = this.#names.files().flatMap(([name, other]) =>
      Array.from({ length: Math.ceil(other.mediumSize / SECTOR_BYTES) }, (_, sector) => ({
        name,
        other,
        sector,
      })).filter(({ sector }) => other !== file || sector < write.first || sector >= write.first + write.count),
    );
    const victim = places[Math.floor(size * places.length)];
    if (victim === undefined) return;
    this.#damaged("disk-misdirected", victim.name, victim.sector * SECTOR_BYTES);
    for (const [index, bytes] of sectors.entries()) {
      victim.other.damage(victim.sector + index, (sector) => sector.set(bytes));
    }
  }

  #read(file: CachedFile, path: string, offset: number, length: number): Uint8Array {
    const rot = this.#faults.draw("disk-bit-rot", this.site);
    if (rot !== undefined) this.#rot(file, path, offset, length, rot.size);
    return file.read(offset, length);
  }

  /** One bit flips, for ever, of what is on the medium between two places. */
  #rot(file: CachedFile, path: string, offset: number, length: number, size: number): void {
    const bytes = Math.min(length, file.mediumSize - offset);
    if (bytes <= 0) return;
    const bit = Math.floor(size * 8 * bytes);
    const at = offset + Math.floor(bit / 8);
    file.damage(Math.floor(at / SECTOR_BYTES), (sector) => {
      sector[at % SECTOR_BYTES] = (sector[at % SECTOR_BYTES] as number) ^ (1 << (bit % 8));
    });
    this.#damaged("disk-bit-rot", path, at);
  }

  #damaged(kind: DiskDamage["kind"], path: string, offset: number): void {
    this.#damage.push({ kind, path, offset, timeUs: this.#loop.nowUs });
    this.#loop.trace(kind, this.site, `${path}@${offset}`);
  }

  #fateAtCrash(write: PendingWrite): WriteFate {
    const lost = this.#faults.draw("disk-lost-write", this.site);
    if (lost !== undefined) return lostFate(write, lost.size);
    const torn = write.kind === "write" ? this.#faults.draw("disk-torn", this.site) : undefined;
    return torn === undefined ? KEPT : tornFate(write, torn.size);
  }
}
