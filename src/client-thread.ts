/**
 * What every client thread of a cluster has, the main one and connected ones alike: bridges to the workers, admission, a
 * coordinator, barriers.
 *
 * Invariant: the parts are of one thread and see the same topology and replica table; closing ends what waits in any of them.
 */
import { BarrierCatalog } from "../actors/barrier/client-barrier.ts";
import { Coordinator } from "../actors/coordinator.ts";
import type { RouterStats } from "../actors/router-stats.ts";
import { ShardReader } from "../actors/shard-reader.ts";
import type { Verbs } from "../native-bridge/verbs.ts";
import { invalidArgument, ShardloomError } from "./errors.ts";
import { ClientPlane } from "./plane/client-plane.ts";
import type { ControlClient } from "./plane/control-types.ts";
import { AdmissionController, type AdmissionStats } from "./routing/admission.ts";
import type { AdmissionOptions } from "./routing/admission-options.ts";
import type { CallDefaults } from "./routing/call-defaults.ts";
import type { Runtime } from "./runtime/runtime.ts";
import { ReplicaTable } from "./topology/replica-table.ts";
import { isRemoved } from "./topology/snapshot.ts";
import type { TopologySource } from "./topology/topology-source.ts";

/** How much a client thread may have under way and waiting, and how it is shared. Plain data. */
export type AdmissionLimits = Omit<AdmissionOptions, "clock" | "scheduler" | "shards" | "hasTaken">;

/** What a client thread is made from. */
export interface ClientThreadOptions {
  readonly name: string;
  readonly runtime: Runtime;
  readonly topology: TopologySource;
  readonly replicas: SharedArrayBuffer;
  readonly defaults: CallDefaults;
  readonly admission: AdmissionLimits;
  readonly spinLimitUs: number;
  /** The thread's doorbell, when another thread has made it. @default a new one */
  readonly block?: SharedArrayBuffer;
}

/** The client side of one thread. */
export class ClientThread implements ControlClient {
  readonly plane: ClientPlane;
  readonly admission: AdmissionController;
  readonly coordinator: Coordinator;
  readonly barriers: BarrierCatalog;

  constructor(options: ClientThreadOptions) {
    const { name, runtime, topology, defaults, spinLimitUs, block } = options;
    const { clock, scheduler, random } = runtime;
    const thread = { clock, scheduler };
    this.plane = new ClientPlane({
      ...thread,
      name,
      topology,
      spinLimitUs,
      ...(block === undefined ? {} : { block }),
    });
    const { plane } = this;
    this.admission = new AdmissionController({
      ...options.admission,
      ...thread,
      shards: topology.current().shards,
      hasTaken: (shard) => plane.requester(shard).hasTaken,
    });
    this.coordinator = new Coordinator({
      ...thread,
      topology,
      defaults,
      random,
      admission: this.admission,
      requester: (shard) => plane.requester(shard),
      lag: new ReplicaTable(options.replicas, topology, () => clock.nowMs()),
    });
    this.barriers = new BarrierCatalog({
      ...thread,
      coordinator: this.coordinator,
      origin: `client:${name}`,
      waitTimeoutMs: defaults.requestTimeoutMs,
    });
  }

  get name(): string {
    return this.plane.name;
  }

  get block(): SharedArrayBuffer {
    return this.plane.block;
  }

  attach(shard: number, bridge: SharedArrayBuffer, block: SharedArrayBuffer): void {
    this.plane.attach(shard, bridge, block);
    this.coordinator.workerReplaced(shard);
  }

  lose(shard: number, error: ShardloomError): void {
    this.admission.failShard(shard, error);
    this.plane.lose(shard, error);
  }

  watch(onDamaged: (shard: number) => void): void {
    this.plane.watch(onDamaged);
  }

  /** @param own Shards of this process, which `verbs` read. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a shard that there is not. */
  readerOf(shard: number, verbs: Verbs, own: readonly number[]): ShardReader {
    const { coordinator } = this;
    const { snapshot } = coordinator;
    if (!Number.isInteger(shard) || shard < 0 || shard >= snapshot.shards || isRemoved(snapshot, shard))
      throw invalidArgument("read memory", "shard", `one of ${coordinator.shards.join(", ")}`, shard);
    return new ShardReader({ shard, verbs: own.includes(shard) ? verbs : undefined, coordinator });
  }

  stats(): RouterStats & { readonly admission: AdmissionStats } {
    return { ...this.coordinator.stats(), admission: this.admission.stats() };
  }

  /** Fails what is open and refuses what comes. */
  close(): void {
    this.admission.close(new ShardloomError("ERR_CLOSED", "Cannot send request as the cluster is closed"));
    this.coordinator.close();
    this.plane.close();
  }
}
