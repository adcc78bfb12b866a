/** Documents whose content follows from the position of the log alone, and temporary directories of nodes. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createScrubber } from "../../src/plane/scrub-process.ts";
import { crc32 } from "../../src/runtime/checksum.ts";
import { createSystemDisk, type Disk } from "../../src/runtime/disk.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import type { DocumentStep } from "../../src/store/document-batch.ts";
import { documentsFile, makeDocumentsDirectory } from "../../src/store/document-files.ts";
import type { DocumentsSource } from "../../src/store/document-recovery.ts";
import { type Documents, openDocuments } from "../../src/store/documents.ts";
import type { Scrubber } from "../../src/store/scrub-documents.ts";
import { randomFrom } from "../actors/vector/support.ts";

export const CLUSTER = "0123456789abcdef";
export const TYPE = 0x0103;

export const realScrub: Scrubber = createScrubber(
  new URL("../../actors/scrub-documents.worker.js", import.meta.url),
  systemScheduler,
);

/** A node's directory that is removed in the end. */
export class NodeDirectory {
  readonly path: string;
  readonly disk: Disk;

  constructor(path: string, disk: Disk) {
    this.path = path;
    this.disk = disk;
  }

  source(shard = 0, scrub: Scrubber | undefined = realScrub): DocumentsSource {
    const randomU32 = (): number => Math.floor(Math.random() * 2 ** 32);
    return { disk: this.disk, shard, directory: this.path, clusterId: CLUSTER, scrub, randomU32 };
  }

  file(shard = 0): string {
    return join(this.path, documentsFile(shard));
  }

  async open(shard = 0): Promise<Documents> {
    await makeDocumentsDirectory(this.source(shard));
    return openDocuments({ path: this.file(shard), clusterId: CLUSTER, shard });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

export async function createNodeDirectory(): Promise<NodeDirectory> {
  const path = await mkdtemp(join(tmpdir(), "shardloom-documents-"));
  return new NodeDirectory(path, await createSystemDisk(path));
}

const text = new TextEncoder();

/** The id word and bytes of a string. */
export function idOf(id: string): { idWord: number; id: Uint8Array } {
  const bytes = text.encode(id);
  return { idWord: bytes.length, id: bytes };
}

/** What a document is at a position. */
export function documentAt(position: number, index: number, id: string, body: Uint8Array | undefined): DocumentStep {
  const change = {
    collection: 1 + (id.length % 2),
    vshard: crc32(id) % 5,
    ...idOf(id),
    type: TYPE,
    version: position,
    body,
  };
  return { step: "document", place: { position, index }, change };
}

/** What the frame at a position does, from the seed and the position alone. */
export function frameAt(seed: number, position: number): DocumentStep[] {
  const random = randomFrom(seed + position * 7919);
  const steps: DocumentStep[] = [];
  const count = 1 + Math.floor(random() * 12);
  for (let index = 0; index < count; index++) {
    const id = `d${Math.floor(random() * 400)}`;
    const body = random() < 0.25 ? undefined : new Uint8Array(Math.floor(random() * 3_000)).fill(position & 0xff);
    steps.push(documentAt(position, index, id, body));
  }
  if (random() < 0.1)
    steps.push({ step: "sweep", vshard: position % 5, before: { position: position - 40, index: 3 } });
  if (random() < 0.3)
    steps.push({
      step: "key",
      record: {
        position,
        index: count,
        vshard: position % 5,
        lsn: position,
        key: `k${position}`,
        result: text.encode(`r${position}`),
      },
    });
  const record = { lsn: position, state: "whole", leaseEpoch: 1 } as const;
  steps.push({ step: "vshard", vshard: position % 5, record });
  return steps;
}

/** The naive model. */
export class Model {
  readonly documents: Map<string, { vshard: number; position: number; index: number; text: string }> = new Map();
  readonly vshards: Map<number, string> = new Map();
  keys: string[] = [];

  apply(steps: readonly DocumentStep[]): void {
    for (const step of steps)
      if (step.step === "document") {
        const { collection, vshard, id, body } = step.change;
        const name = `${collection}/${vshard}/${new TextDecoder().decode(id)}`;
        const { position, index } = step.place;
        if (body === undefined) this.documents.delete(name);
        else this.documents.set(name, { vshard, position, index, text: describe(position, body) });
      } else if (step.step === "sweep") {
        const { position, index } = step.before;
        for (const [name, document] of this.documents)
          if (
            document.vshard === step.vshard &&
            (document.position < position || (document.position === position && document.index < index))
          )
            this.documents.delete(name);
      } else if (step.step === "vshard") this.vshards.set(step.vshard, JSON.stringify(step.record));
      else if (step.step === "key")
        this.keys.push(`${step.record.position} ${step.record.key} ${step.record.result.join()}`);
  }

  content(): string[] {
    const documents = [...this.documents].map(([name, document]) => `${name}: ${document.text}`).sort();
    const vshards = [...this.vshards].map(([vshard, record]) => `${vshard}: ${record}`).sort();
    return [...documents, ...vshards, ...this.keys];
  }
}

/** The same of an environment. */
export function contentOf(documents: Documents): string[] {
  const found: string[] = [];
  for (const { key, document } of documents.documents())
    found.push(
      `${document.collection}/${document.vshard}/${key.toString("utf8", 8)}: ${describe(document.place.position, document.body)}`,
    );
  const vshards = [...documents.vshards].map(([vshard, record]) => `${vshard}: ${JSON.stringify(record)}`).sort();
  const keys = [...documents.keys()].map(({ position, key, result }) => `${position} ${key} ${result.join()}`);
  return [...found.sort(), ...vshards, ...keys];
}

function describe(position: number, body: Uint8Array): string {
  return `${position} ${body.length} ${crc32(body)}`;
}
