/** A process that asks once over an unref'd thread and then has nothing to do: it must wait for the answer, and then end. */
import { OP, Peer } from "./peer.ts";

const peer = new Peer();
peer.worker.unref();
peer.open();
const started = performance.now();
void peer.ask(OP.DELAY, 300, 60_000).then(() => {
  process.stdout.write(`answered after ${Math.round(performance.now() - started)}`);
});
