/** A thread that reads and writes a replicated collection by its own plans, until it is told to stop. */
import { parentPort, workerData } from "node:worker_threads";
import { type ClusterPort, connect, Session, ShardloomError } from "../../src/index.ts";

const { port, name } = workerData as { port: ClusterPort; name: string };
const cluster = await connect(port);
const docs = await cluster.vectors("docs");
const acked = new Map<string, number>();
const tried = new Map<string, number>();
const codes: Record<string, number> = {};
const wrong: string[] = [];
let running = true;

async function once(round: number): Promise<void> {
  const id = `${name}-${round % 20}`;
  const session = new Session();
  const vector = new Float32Array(4).fill(round);
  tried.set(id, round);
  await docs.upsert({ id, vector }, { session, acks: round % 2 === 0 ? "quorum" : "all" });
  acked.set(id, round);
  const [stored, found] = await Promise.all([
    docs.get(id, { session, strategy: "random" }),
    docs.search(vector, { session, k: 3, exact: true, strategy: "round-robin", includeVector: true, explain: true }),
  ]);
  if (stored?.vector?.[0] !== round) wrong.push(`get ${id} gave ${stored?.vector?.[0]} after ${round}`);
  if (found.hits.find((hit) => hit.id === id)?.vector?.[0] !== round) wrong.push(`search missed ${id} at ${round}`);
  if (found.explain?.plan.copies !== "round-robin") wrong.push("no explanation");
}

async function run(): Promise<void> {
  for (let round = 1; running; round++) {
    let code = "ok";
    await once(round).catch((error: unknown) => {
      code = ShardloomError.is(error) ? error.code : String(error);
    });
    codes[code] = (codes[code] ?? 0) + 1;
    if (round === 50) parentPort?.postMessage("warm");
  }
}

const done = run();
parentPort?.on("message", () => {
  running = false;
  void done.then(() => {
    parentPort?.postMessage({ acked, tried, codes, wrong });
    return cluster.close();
  });
});
