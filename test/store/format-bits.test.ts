/**
 * Every bit of what says which format a file of a node is of, flipped: damage is told as damage, and never as the work of a newer release, for which
 * people would look in vain. What a newer release has really written is refused as that. Either way nothing on the disk is touched.
 */
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { crc32 } from "../../src/runtime/checksum.ts";
import type { Disk } from "../../src/runtime/disk.ts";
import { MANIFEST_FILE, readManifest } from "../../src/store/backup-manifest.ts";
import { formatCheckedJson, parseCheckedJson } from "../../src/store/checked-json.ts";
import { COLLECTIONS_FILE, readCollections } from "../../src/store/collection-store.ts";
import { DIRECTORY_FILE, readDataDirectory } from "../../src/store/data-directory.ts";
import { checkShardFormats } from "../../src/store/directory-formats.ts";
import { checkDocumentsFormat, isClean } from "../../src/store/document-files.ts";
import { decodeMessage, encodeMessage } from "../../src/store/nats-log-format.ts";
import { decodeSegmentHeader, encodeSegmentHeader, segmentName } from "../../src/store/segment-format.ts";
import { openNewestSnapshot } from "../../src/store/snapshot-file.ts";
import { decodeHeader, encodeHeader } from "../../src/store/snapshot-layout.ts";
import { openKeptLeaseStore } from "../../src/topology/kept-lease-store.ts";

const text = (content: string): Uint8Array => new TextEncoder().encode(content);
const COLLECTIONS = { nextCollection: 1, collections: [], generations: [] };
const DIRECTORY = {
  cluster: "00ff",
  node: "n0",
  ownShards: [0],
  shards: 1,
  vshards: 8,
  replicationFactor: 1,
  starts: 3,
};
const MANIFEST = { directory: DIRECTORY, collections: COLLECTIONS, parts: [] };
const MAP = { map: Buffer.from('{"version":3,"lives":{},"moved":{}}').toString("base64") };

/** Files that can be read, and nothing else: whoever changes something fails the test. */
function readOnly(files: ReadonlyMap<string, Uint8Array>): Disk {
  const touched = (): never => {
    throw new Error("the disk was touched");
  };
  return {
    open: async (path, mode) => {
      const bytes = files.get(path);
      if (mode !== "read") touched();
      if (bytes === undefined) throw new ShardloomError("ERR_NO_FILE", `Cannot open ${path} as it must be there`);
      return {
        read: async (offset, length) => bytes.slice(offset, offset + length),
        size: async () => bytes.length,
        close: async () => undefined,
        write: touched,
        sync: touched,
        truncate: touched,
      };
    },
    list: async (directory) => {
      const prefix = directory === "" ? "" : `${directory}/`;
      const below = [...files.keys()].filter((path) => path.startsWith(prefix));
      return [...new Set(below.map((path) => path.slice(prefix.length).split("/", 1)[0] as string))].sort();
    },
    remove: touched,
    rename: touched,
    makeDirectory: touched,
    syncDirectory: touched,
  };
}

function* flipped(whole: Uint8Array): Generator<[bit: number, bytes: Uint8Array]> {
  for (let bit = 0; bit < whole.length * 8; bit++) {
    const bytes = whole.slice();
    bytes[bit >>> 3] = (bytes[bit >>> 3] as number) ^ (1 << (bit & 7));
    yield [bit, bytes];
  }
}

async function outcomeOf(read: () => Promise<unknown>): Promise<unknown> {
  try {
    return { said: (await read()) ?? "nothing" };
  } catch (error) {
    if (!ShardloomError.is(error)) throw error;
    return error.code;
  }
}

/** A header of another version, under a checksum of its own. */
function ofVersion(header: Uint8Array, at: number, version: number, crcAt: number): Uint8Array {
  const bytes = header.slice();
  const view = new DataView(bytes.buffer);
  view.setUint32(at, version, true);
  view.setUint32(crcAt, crc32(bytes.subarray(0, crcAt)), true);
  return bytes;
}

const SEGMENT = encodeSegmentHeader({
  log: 7,
  generation: 3,
  first: 41,
  durable: 40,
  leaseEpoch: 2,
  previousFirst: 1,
  previousOwner: 0,
});
const SNAPSHOT = encodeHeader(41).bytes;
const MESSAGE = encodeMessage(
  { writer: [1, 2], batch: 3, part: 0, parts: 1, batchBytes: 5, first: 4, last: 4, leaseEpoch: 1 },
  text("piece"),
);
const LOG_PATH = `shards/0/log/${segmentName(41)}`;
const NAME = `${String(41).padStart(20, "0")}.snapshot`;
const SNAPSHOT_PATH = `shards/0/snapshots/${NAME}`;
const MARK_PATH = "documents/0/clean";

describe("a file of checked JSON", () => {
  test.for([
    [DIRECTORY_FILE, DIRECTORY, readDataDirectory],
    [COLLECTIONS_FILE, COLLECTIONS, readCollections],
    ["map.json", MAP, async (disk: Disk) => (await openKeptLeaseStore(disk)).get("map", 1)],
    [MANIFEST_FILE, MANIFEST, readManifest],
    [
      "table of objects",
      { directories: [], files: {}, writer: "w" },
      async (disk: Disk) => {
        const file = await disk.open("table of objects", "read");
        return parseCheckedJson(new TextDecoder().decode(await file.read(0, 1e6)), "table", 1);
      },
    ],
  ] as const)(
    "%s says the same or is damaged, whichever bit flips; of a newer release it is refused",
    async (given) => {
      const [path, content, read] = given;
      const of = (bytes: Uint8Array): Promise<unknown> => outcomeOf(() => read(readOnly(new Map([[path, bytes]]))));
      const whole = text(formatCheckedJson(1, content));
      const said = await of(whole);
      expect(said).toHaveProperty("said");
      let damaged = 0;
      for (const [bit, bytes] of flipped(whole)) {
        const outcome = await of(bytes);
        if (outcome === "ERR_CORRUPT") damaged++;
        else expect(outcome, `bit ${bit}`).toEqual(said);
      }
      expect(damaged).toBeGreaterThan(whole.length * 4);
      for (const newer of [2, 3, 1 << 20])
        expect(await of(text(formatCheckedJson(newer, { whatever: newer })))).toBe("ERR_UNSUPPORTED_FORMAT");
    },
  );
});

describe("the mark of documents that were closed in order", () => {
  test("says nothing, whichever bit flips; of a newer release it is refused", async () => {
    const data = text("an environment");
    const diskOf = (mark: Uint8Array): Disk =>
      readOnly(
        new Map([
          ["documents/0/data.mdb", data],
          [MARK_PATH, mark],
        ]),
      );
    const whole = text(formatCheckedJson(1, { bytes: data.length, crc32: crc32(data) }));
    expect(await isClean({ disk: diskOf(whole), shard: 0 })).toBe(true);
    for (const [bit, bytes] of flipped(whole)) {
      const disk = diskOf(bytes);
      await checkShardFormats(disk, [0]); // throws where a start would be refused
      const isSame = bytes.length > 0 && (await isClean({ disk, shard: 0 }));
      if (isSame)
        expect(JSON.parse(new TextDecoder().decode(bytes)), `bit ${bit}`).toEqual(
          JSON.parse(new TextDecoder().decode(whole)),
        );
    }
    // As it was written once, without a checksum: the documents are scrubbed.
    for (const old of ['{"format":1,"bytes":14,"crc32":0}', '{"format":3,"bytes":14,"crc32":0}']) {
      await checkDocumentsFormat({ disk: diskOf(text(old)), shard: 0 });
      expect(await isClean({ disk: diskOf(text(old)), shard: 0 })).toBe(false);
    }
    const newer = diskOf(text(formatCheckedJson(2, { bytes: data.length, crc32: crc32(data) })));
    expect(await isClean({ disk: newer, shard: 0 })).toBe(false);
    expect(await outcomeOf(() => checkShardFormats(newer, [0]))).toBe("ERR_UNSUPPORTED_FORMAT");
  });
});

describe("a header", () => {
  test("of a segment is none, whichever bit flips; of a newer release it is refused", async () => {
    const diskOf = (bytes: Uint8Array): Disk => readOnly(new Map([[LOG_PATH, bytes]]));
    expect(decodeSegmentHeader(SEGMENT, LOG_PATH)).toMatchObject({ first: 41, generation: 3 });
    for (const [bit, bytes] of flipped(SEGMENT)) {
      expect(decodeSegmentHeader(bytes, LOG_PATH), `bit ${bit}`).toBeUndefined();
      await checkShardFormats(diskOf(bytes), [0]);
    }
    for (const version of [0, 2, 3])
      expect(await outcomeOf(() => checkShardFormats(diskOf(ofVersion(SEGMENT, 8, version, 60)), [0]))).toBe(
        "ERR_UNSUPPORTED_FORMAT",
      );
  });

  test("of a snapshot is none, whichever bit flips; of a newer release it is refused, by whoever opens it too", async () => {
    const diskOf = (bytes: Uint8Array): Disk => readOnly(new Map([[SNAPSHOT_PATH, bytes]]));
    const open = (bytes: Uint8Array): Promise<unknown> =>
      outcomeOf(() => openNewestSnapshot(diskOf(bytes), "shards/0/snapshots", {}));
    expect(decodeHeader(SNAPSHOT)).toMatchObject({ position: 41 });
    for (const [bit, bytes] of flipped(SNAPSHOT)) {
      expect(decodeHeader(bytes), `bit ${bit}`).toBeUndefined();
      await checkShardFormats(diskOf(bytes), [0]);
      expect(await open(bytes), `bit ${bit}`).toBe("ERR_CORRUPT");
    }
    const newer = ofVersion(SNAPSHOT, 4, 2, 28);
    expect(await outcomeOf(() => checkShardFormats(diskOf(newer), [0]))).toBe("ERR_UNSUPPORTED_FORMAT");
    expect(await open(newer)).toBe("ERR_UNSUPPORTED_FORMAT");
  });

  test("of a message of a stream is none, whichever bit flips, of its piece too; of a newer release it is refused", () => {
    expect(decodeMessage(MESSAGE)).toMatchObject({ header: { batch: 3, first: 4 } });
    for (const [bit, bytes] of flipped(MESSAGE)) expect(decodeMessage(bytes), `bit ${bit}`).toBeUndefined();
    expect(() => decodeMessage(ofVersion(MESSAGE, 4, 2, 60))).toThrow(
      expect.objectContaining({ code: "ERR_UNSUPPORTED_FORMAT" }),
    );
  });
});
