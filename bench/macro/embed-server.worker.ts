/**
 * One server of bench `embed`, in a process of its own: `cluster` or `main-thread`. Driven over IPC:
 * "begin" starts the event-loop histogram, "end" answers with it and with the CPU time since.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createSearchServer } from "../../test/examples/search-server.ts";
import { createBaselineServer } from "./embed-baseline.ts";
import { DIMENSIONS, idOf, makeVectors } from "./embed-data.ts";

/** What "end" answers. */
export interface ServerSample {
  /** Event-loop delay, in ms, as `monitorEventLoopDelay` counts it: the resolution of 1 ms is part of it. */
  readonly delayP50: number;
  readonly delayP99: number;
  readonly delayMax: number;
  /** Cores that the whole process used. */
  readonly cores: number;
}

const [side, rows, seed] = process.argv.slice(2) as [string, string, string];
const vectors = makeVectors(Number(rows), Number(seed));

function* documents(): Generator<{ id: string; vector: Float32Array }> {
  for (let row = 0; row < Number(rows); row++) {
    yield { id: idOf(row), vector: vectors.subarray(row * DIMENSIONS, (row + 1) * DIMENSIONS) };
  }
}

const app =
  side === "cluster"
    ? await createSearchServer({ documents: documents(), dimensions: DIMENSIONS })
    : createBaselineServer(vectors);
await app.listen({ port: 0, host: "127.0.0.1" });
const histogram = monitorEventLoopDelay({ resolution: 1 });
let cpu = process.cpuUsage();
let startedMs = performance.now();

process.on("message", (message) => {
  if (message === "begin") {
    histogram.reset();
    histogram.enable();
    cpu = process.cpuUsage();
    startedMs = performance.now();
    process.send?.("begun");
  } else if (message === "end") {
    histogram.disable();
    const { user, system } = process.cpuUsage(cpu);
    const cores = (user + system) / 1000 / (performance.now() - startedMs);
    const sample: ServerSample = {
      delayP50: histogram.percentile(50) / 1e6,
      delayP99: histogram.percentile(99) / 1e6,
      delayMax: histogram.max / 1e6,
      cores,
    };
    process.send?.(sample);
  } else {
    void app.close().then(() => process.disconnect());
  }
});
const address = app.server.address();
process.send?.({ port: typeof address === "object" ? address?.port : undefined });
