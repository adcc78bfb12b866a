/** What tests of the segment log share: a disk that counts and fails, and logs on simulated disks. */
import type { Disk, DiskFile } from "../../src/runtime/disk.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";
import { SimDisk, type SimDiskOptions } from "../../src/sim/disk.ts";
import type { FaultInjector } from "../../src/sim/fault-types.ts";
import { createReplayInjector } from "../../src/sim/injector.ts";
import { SegmentLog } from "../../src/store/segment-log.ts";
import type { SegmentLogOptions } from "../../src/store/segment-options.ts";
import { SteppedLoop, schedulerOf } from "../sim/stepped-loop.ts";

export { ALL, codeOf, entryOf, framesIn, framesOf, valuesIn } from "./log-frames.ts";

/** Small enough that a few frames fill a segment. */
export const SMALL = { segmentBytes: 16 * 1024, firstSegmentBytes: 4 * 1024 } as const;

/** A simulated disk, its loop, and logs on it. */
export interface SimLogs {
  readonly loop: SteppedLoop;
  readonly disk: SimDisk;
  readonly scheduler: Scheduler;
  open(options?: Partial<SegmentLogOptions>, disk?: Disk): Promise<SegmentLog>;
}

export function simLogs(
  seed: number,
  faults: FaultInjector = createReplayInjector([]),
  options: Pick<SimDiskOptions, "capacityBytes"> = {},
): SimLogs {
  const loop = new SteppedLoop(seed);
  const disk = new SimDisk({ node: "n0", loop, faults, ...options });
  const scheduler = schedulerOf(loop);
  return {
    loop,
    disk,
    scheduler,
    open: (options, mounted = disk.mount()) => SegmentLog.open(mounted, "log", { ...SMALL, scheduler, ...options }),
  };
}

/** An operation of a disk, before it is done. May throw, or wait. */
export type Hook = (operation: string, path: string) => void | Promise<void>;

/** A disk whose every operation goes through a hook first. */
export function hookedDisk(disk: Disk, hook: Hook): Disk {
  const file = (path: string, inner: DiskFile): DiskFile => ({
    read: async (offset, length) => {
      await hook("read", path);
      return inner.read(offset, length);
    },
    write: async (offset, bytes) => {
      await hook("write", path);
      await inner.write(offset, bytes);
    },
    sync: async () => {
      await hook("sync", path);
      await inner.sync();
    },
    truncate: async (size) => {
      await hook("truncate", path);
      await inner.truncate(size);
    },
    size: () => inner.size(),
    close: () => inner.close(),
  });
  return {
    open: async (path, mode) => {
      await hook(`open ${mode}`, path);
      return file(path, await disk.open(path, mode));
    },
    list: async (path) => {
      await hook("list", path);
      return disk.list(path);
    },
    remove: async (path) => {
      await hook("remove", path);
      await disk.remove(path);
    },
    rename: async (from, to) => {
      await hook("rename", from);
      await disk.rename(from, to);
    },
    makeDirectory: async (path) => {
      await hook("makeDirectory", path);
      await disk.makeDirectory(path);
    },
    syncDirectory: async (path) => {
      await hook("syncDirectory", path);
      await disk.syncDirectory(path);
    },
  };
}
