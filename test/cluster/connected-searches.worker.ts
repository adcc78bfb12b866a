/** A thread that connects with every port it is sent, and searches one-sidedly in all the ways that take memory. Answers one command at a time. */
import { parentPort } from "node:worker_threads";
import {
  type ClusterClient,
  type ClusterPort,
  connect,
  ShardloomError,
  type VectorCollection,
} from "../../src/index.ts";

const QUERIES = 40;

const clients: ClusterClient[] = [];
let docs: VectorCollection;

function query(at: number): Float32Array {
  return Float32Array.from({ length: docs.options.dimensions }, (_, component) => ((at * 7 + component * 3) % 11) / 11);
}

const queries = (): Float32Array[] => Array.from({ length: QUERIES }, (_, at) => query(at));

const codeOf = (error: unknown): string => (ShardloomError.is(error) ? error.code : String(error));

/** A search, one with a filter, and many at once, until all of them were answered one-sidedly. @returns the hits */
async function searches(): Promise<unknown> {
  for (;;) {
    const plain = await docs.search(query(0));
    const filtered = await docs.search(query(1), { filter: { even: true } });
    const { results, batch } = await docs.searchMany(queries());
    if (plain.by !== "one-sided" || filtered.by !== "one-sided" || batch.alone > 0) continue;
    return [plain, filtered, ...results].map(({ hits }) => hits.map(({ id, score }) => [id, score]));
  }
}

async function forEver(act: () => Promise<unknown>): Promise<never> {
  await act();
  parentPort?.postMessage({ value: "on" });
  for (;;) await act();
}

const commands: Record<string, (argument: never) => unknown> = {
  connect: async (port: ClusterPort) => {
    const client = await connect(port);
    clients.push(client);
    return client.topology.shards;
  },
  searches: async (name: string) => {
    docs = await (clients.at(-1) as ClusterClient).vectors(name);
    return searches();
  },
  /** @returns why it cannot be searched any more, when that is so */
  dropped: async () => {
    for (;;) {
      try {
        await docs.search(query(0));
      } catch (error) {
        return codeOf(error);
      }
    }
  },
  /** @returns what becomes of searches that are under way, and of those by a reader that is kept: at once, and when it is closed */
  close: async () => {
    const reader = docs.reader();
    const underWay = docs.searchMany(Array.from({ length: 2_000 }, (_, at) => query(at))).then(() => "ended", codeOf);
    const uses = [() => reader.search(query(0), 3), () => reader.scanExact(query(0), 3)];
    const outcomes = (): unknown[] =>
      uses.map((use) => {
        try {
          return use().hits.length;
        } catch (error) {
          return codeOf(error);
        }
      });
    const closed = clients.pop()?.close();
    const atOnce = outcomes();
    await closed;
    return [await underWay, ...atOnce, ...outcomes()];
  },
  /** One search, as far as it takes memory. */
  search: async (name: string) => {
    docs = await (clients.at(-1) as ClusterClient).vectors(name);
    return (await docs.search(query(0))).by;
  },
  /** Go on for as long as there is the thread, once they have told that they do. */
  searchOnAndOn: () => forEver(() => docs.search(query(0), { filter: { even: true } })),
  searchManyOnAndOn: () => forEver(() => docs.searchMany(queries())),
};

async function answer(command: string, argument: never): Promise<void> {
  try {
    parentPort?.postMessage({ value: await commands[command]?.(argument) });
  } catch (error) {
    parentPort?.postMessage({ code: codeOf(error) });
  }
}

parentPort?.on(
  "message",
  ({ command, argument }: { command: string; argument: never }) => void answer(command, argument),
);
