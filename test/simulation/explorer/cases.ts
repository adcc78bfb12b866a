/**
 * The programs that the explorer runs over production, by name, with what is explored of them in a short and a long run.
 *
 * Invariant: the short run of every program is exhaustive in both memory models.
 */
import type { ExploreOptions } from "../../../src/sim/explorer/explore.ts";
import {
  arenaBlocks,
  cellReads,
  cellWrap,
  cellWriters,
  regionAdds,
  regionClaims,
  regionRead,
  regionRenewed,
  regionWrite,
} from "./memory-programs.ts";
import type { Production } from "./production.ts";
import {
  bellWithTimeouts,
  bridgeCancel,
  bridgeOverflow,
  bridgeRoom,
  ringAndBell,
  ringStream,
  twoRingers,
} from "./ring-programs.ts";

/** A program over any shared state. */
export type Program = ExploreOptions<never>;
type Maker = (production: Production) => Program;

function make<S>(maker: (production: Production) => ExploreOptions<S>): Maker {
  return maker as unknown as Maker;
}

/** Explored exhaustively by every run of the tests. */
export const SHORT = {
  "ring: wrap with padding": make((production) => ringStream(production, { stream: [8, 0, 8, 8], drains: 2 })),
  "ring: batch over the wrap": make((production) =>
    ringStream(production, { stream: [8, 8, 4, 8, 8], drains: 2, limit: 2 }),
  ),
  "ring: two laps": make((production) => ringStream(production, { stream: [8, 8, 8, 8, 8], drains: 3, limit: 3 })),
  "ring: a long drain": make((production) => ringStream(production, { stream: [8, 8, 8, 8, 8, 8, 0], drains: 2 })),
  "ring: close": make((production) => ringStream(production, { stream: [8, 0], drains: 3, closes: true })),
  "ring: takeover": make((production) => ringStream(production, { stream: [8, 8, 8, 0, 8], drains: 2, before: 3 })),
  "ring and doorbell": make((production) => ringAndBell(production, 2, "wait")),
  "ring and doorbell, async": make((production) => ringAndBell(production, 2, "waitAsync")),
  "ring and doorbell, timeouts": make((production) => bellWithTimeouts(production)),
  "ring and doorbell, two ringers": make((production) => twoRingers(production)),
  "bridge: room": make((production) => bridgeRoom(production)),
  "bridge: overflow": make((production) => bridgeOverflow(production)),
  "bridge: cancel": make((production) => bridgeCancel(production, false)),
  "cell: reads": make((production) => cellReads(production, false)),
  "cell: reads that end in an atomic": make((production) => cellReads(production, true)),
  "cell: a lap of the version": make((production) => cellWrap(production)),
  "cell: two writers": make((production) => cellWriters(production)),
  "region: read, then freed": make((production) => regionRead(production, 0, false)),
  "region: read, then another's": make((production) => regionRead(production, 0, true)),
  "region: read of a cell": make((production) => regionRead(production, 48, true)),
  "region: write": make((production) => regionWrite(production, 0, "write")),
  "region: write to a cell": make((production) => regionWrite(production, 48, "write")),
  "region: fetch and add": make((production) => regionWrite(production, 0, "fetchAdd")),
  "region: two remote threads": make((production) => regionAdds(production)),
  "region: compare and swap in a cell": make((production) => regionWrite(production, 48, "compareAndSwap")),
  "region: write while it is renewed": make((production) => regionRenewed(production)),
  "region: two owners register": make((production) => regionClaims(production)),
} satisfies Record<string, Maker>;

/** Larger ones, for the long run. */
export const LONGER = {
  "arena: blocks": make((production) => arenaBlocks(production)),
  "ring: three laps": make((production) =>
    ringStream(production, { stream: [8, 0, 8, 8, 8, 4, 8, 8, 0], drains: 4, limit: 3 }),
  ),
  "ring and doorbell, three records": make((production) => ringAndBell(production, 3, "wait")),
  "bridge: cancel and reply": make((production) => bridgeCancel(production, true)),
  "region: three reads": make((production) => regionRead(production, 0, true, 3)),
} satisfies Record<string, Maker>;

/** Only run by random schedules. */
export const LARGE = {
  "ring: a long stream": make((production) =>
    ringStream(production, {
      stream: Array.from({ length: 24 }, (_, at) => [8, 0, 4, 8, 8][at % 5] as number),
      drains: 12,
      limit: 3,
    }),
  ),
  "ring and doorbell, three records": make((production) => ringAndBell(production, 3, "wait")),
  "bridge: cancel and reply": make((production) => bridgeCancel(production, true)),
} satisfies Record<string, Maker>;

export type CaseName = keyof typeof SHORT | keyof typeof LONGER;

export function programOf(name: CaseName, production: Production): Program {
  return ({ ...SHORT, ...LONGER } as Record<string, Maker>)[name]?.(production) as Program;
}
