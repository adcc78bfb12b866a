/**
 * `shardloom info`: what this machine and installation offer, and how long a cluster takes to start here.
 */
import { availableParallelism, cpus, totalmem } from "node:os";
import { Cluster } from "../cluster.ts";
import { resolveClusterOptions } from "../cluster-options.ts";
import { webTransportSupport } from "../transport/webtransport.ts";
import { type Command, EXIT } from "./command.ts";
import { formatTable } from "./table.ts";
import { formatBytes, formatSeconds } from "./units.ts";

export const info: Command = {
  name: "info",
  summary: "Show the machine, the defaults, and start a cluster once to see that it works",
  usage: "",
  options: {},
  async run({ output }) {
    const defaults = resolveClusterOptions();
    const started = performance.now();
    await using cluster = await Cluster.start();
    const startMs = performance.now() - started;
    const { topology, workers, memory } = await cluster.info();
    const machine = {
      node: process.version,
      platform: `${process.platform} ${process.arch}`,
      cpu: cpus()[0]?.model ?? "unknown",
      cores: availableParallelism(),
      memoryBytes: totalmem(),
    };
    const webTransport = await webTransportSupport();
    output.object({
      machine,
      transports: { tls: "TLS 1.3", webTransport },
      defaults: { ...defaults, actors: [] },
      topology,
      memory,
      workers: workers.map(({ shard, state, activity }) => ({ shard, state, activity })),
      startMs,
    });
    const rows: [string, string][] = [
      ["node", machine.node],
      ["platform", machine.platform],
      ["cpu", `${machine.cpu}, ${machine.cores} cores`],
      ["memory", formatBytes(machine.memoryBytes)],
      ["workers", `${topology.shards} (${workers.map((worker) => worker.state).join(", ")})`],
      ["vshards", String(topology.vshards)],
      ["arena", `${formatBytes(memory.capacityBytes)} reserved, ${formatBytes(memory.usedBytes)} used`],
      [
        "rings",
        `${formatBytes(defaults.requestRingBytes)} requests, ${formatBytes(defaults.replyRingBytes)} replies, ${formatBytes(defaults.meshRingBytes)} between workers`,
      ],
      ["between nodes", `TLS 1.3; WebTransport over ${webTransport.used} (HTTP/3: ${webTransport.http3})`],
      ["start of a cluster", formatSeconds(startMs / 1000)],
    ];
    output.line(formatTable([{ title: "what" }, { title: "value" }], rows, { columns: output.columns }));
    return EXIT.OK;
  },
};
