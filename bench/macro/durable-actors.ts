/**
 * The actor with which bench `durable` ends workers, loaded into its clusters by URL.
 *
 * `SHARDLOOM_BENCH_START_MS`, read when a worker loads this module, is how long that takes: so a successor comes late, and a copy is promoted
 * meanwhile.
 */
import { type ActorDefinition, defineActor } from "../../src/index.ts";

const lateMs: number = Number(process.env["SHARDLOOM_BENCH_START_MS"] ?? 0);
if (lateMs > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, lateMs);

/** Ends its worker's thread, or holds it for ever. */
export const ender: ActorDefinition<object, { exit: () => void; hang: () => void }> = defineActor({
  name: "ender",
  init: (): object => ({}),
  handlers: {
    exit(): void {
      process.exit(1);
    },
    hang(): void {
      for (;;);
    },
  },
});
