/**
 * The compiled production files of shared memory, as they are or with one text replaced in a temporary copy.
 *
 * Invariant: a copy differs from production by exactly one replacement, whose text occurred exactly once.
 */
import type * as ArenaModule from "../../../native-bridge/arena.ts";
import type * as BridgeModule from "../../../native-bridge/bridge.ts";
import type * as CellModule from "../../../native-bridge/cell.ts";
import type * as DoorbellModule from "../../../native-bridge/doorbell.ts";
import type * as IdleModule from "../../../native-bridge/idle-strategy.ts";
import type * as RegionModule from "../../../native-bridge/region-table.ts";
import type * as RingModule from "../../../native-bridge/spsc-ring.ts";
import type * as VerbsModule from "../../../native-bridge/verbs.ts";
import { type MutatedCopy, mutatedCopy, unmutated } from "../../support/mutated.ts";

/** What programs use of production. */
export interface Production {
  readonly arena: typeof ArenaModule;
  readonly bridge: typeof BridgeModule;
  readonly cell: typeof CellModule;
  readonly doorbell: typeof DoorbellModule;
  readonly idle: typeof IdleModule;
  readonly region: typeof RegionModule;
  readonly ring: typeof RingModule;
  readonly verbs: typeof VerbsModule;
}

/** One defect: a piece of the compiled text of a production file, and what stands there instead. */
export interface Replacement {
  /** Below `native-bridge/`, without extension. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

/** The files that users get. */
export function loadProduction(): Promise<Production> {
  return load(unmutated());
}

/** Production with one defect, and how to remove its copy. */
export async function loadMutant({
  file,
  from,
  to,
}: Replacement): Promise<{ production: Production; remove: () => void }> {
  const copy = mutatedCopy([{ file: `native-bridge/${file}`, from, to }], ["native-bridge", "src/errors.js"]);
  try {
    return { production: await load(copy), remove: copy.remove };
  } catch (error) {
    copy.remove();
    throw error;
  }
}

async function load(copy: Pick<MutatedCopy, "url">): Promise<Production> {
  const from = async <T>(name: string): Promise<T> => (await import(copy.url(`native-bridge/${name}`))) as T;
  return {
    arena: await from("arena"),
    bridge: await from("bridge"),
    cell: await from("cell"),
    doorbell: await from("doorbell"),
    idle: await from("idle-strategy"),
    region: await from("region-table"),
    ring: await from("spsc-ring"),
    verbs: await from("verbs"),
  };
}
