/**
 * `shardloom placement`: where copies would be, and what a change of the shards would move. A dry run: no cluster is started.
 */
import { type PlacementMember, type PlacementMove, type PlacementPlan, planPlacement } from "../topology/placement.ts";
import { createSnapshot, MEMBER_STATE, NO_SHARD, type TopologySnapshot } from "../topology/snapshot.ts";
import { type Command, type CommandContext, EXIT, UsageError } from "./command.ts";
import { formatTable } from "./table.ts";

export const placement: Command = {
  name: "placement",
  summary: "Show where the copies of vshards go, and what adding, removing or draining shards would move",
  usage: "[options]",
  options: {
    shards: { type: "integer", min: 1, max: 256, default: 4, summary: "shards there are" },
    vshards: { type: "integer", min: 1, max: 32_768, default: 64, summary: "vshards, a power of two" },
    copies: { type: "integer", min: 1, max: 16, default: 1, summary: "copies of every vshard, all counted" },
    zones: { type: "integer", min: 1, max: 256, default: 1, summary: "zones that the shards are in, in turn" },
    add: { type: "integer", min: 1, max: 255, summary: "shards to add" },
    remove: { type: "string", placeholder: "SHARD,...", summary: "shards to take away" },
    drain: { type: "string", placeholder: "SHARD,...", summary: "shards that shall give their copies away" },
    moves: { type: "boolean", summary: "list every move" },
  },
  run(context) {
    const { output } = context;
    const shards = context.number("shards") ?? 4;
    const vshards = context.number("vshards") ?? 64;
    const copies = context.number("copies") ?? 1;
    const zones = context.number("zones") ?? 1;
    const before = Array.from({ length: shards }, (_, shard): PlacementMember => ({ shard, zone: shard % zones }));
    const first = planPlacement(undefined, before, copies, vshards);
    const removed = shardList(context, "remove", shards);
    const drained = shardList(context, "drain", shards);
    const added = context.number("add") ?? 0;
    if (shards + added > 256) throw new UsageError(`at most 256 shards: ${shards} and ${added} more are too many`);
    const after = [
      ...before.filter(({ shard }) => !removed.includes(shard)).map((member) => drain(member, drained)),
      ...Array.from(
        { length: added },
        (_, at): PlacementMember => ({ shard: shards + at, zone: (shards + at) % zones }),
      ),
    ];
    const changed = added > 0 || removed.length > 0 || drained.length > 0;
    const plan = changed ? planPlacement(snapshotOf(first, before, copies, vshards), after, copies, vshards) : first;
    const all = shards + added;
    const rows = Array.from({ length: all }, (_, shard) => ({ shard, ...heldBy(plan, shard, copies) }));
    const moved = plan.moves.filter(({ reason }) => reason !== "promotion");
    output.object({ shards: rows, moves: plan.moves, movedCopies: moved.length, ofCopies: vshards * copies });
    const columns = [
      { title: "shard", align: "right" as const },
      { title: "primaries", align: "right" as const },
      { title: "copies", align: "right" as const },
    ];
    const cells = rows.map(({ shard, primaries, held }) => [String(shard), String(primaries), String(held)]);
    output.line(formatTable(columns, cells, { columns: output.columns }));
    if (changed) output.line(`${moved.length} of ${vshards * copies} copies would move`);
    if (context.flag("moves")) for (const move of plan.moves) output.line(describe(move));
    return Promise.resolve(EXIT.OK);
  },
};

function drain(member: PlacementMember, drained: readonly number[]): PlacementMember {
  return drained.includes(member.shard) ? { ...member, state: MEMBER_STATE.DRAINING } : member;
}

function snapshotOf(
  { copies }: PlacementPlan,
  members: readonly PlacementMember[],
  replicationFactor: number,
  vshards: number,
): TopologySnapshot {
  const zones = Uint16Array.from(members, ({ zone = 0 }) => zone);
  return createSnapshot({ shards: members.length, vshards, replicationFactor, copies, zones });
}

function heldBy({ copies }: PlacementPlan, shard: number, width: number): { primaries: number; held: number } {
  let primaries = 0;
  let held = 0;
  for (const [at, holder] of copies.entries()) {
    if (holder !== shard) continue;
    held++;
    if (at % width === 0) primaries++;
  }
  return { primaries, held };
}

function describe({ vshard, role, from, to, reason }: PlacementMove): string {
  const name = (shard: number): string => (shard === NO_SHARD ? "nowhere" : `shard ${shard}`);
  return `vshard ${vshard} ${role}: ${name(from)} → ${name(to)} (${reason})`;
}

/** Shards of an option such as `0,3`. */
function shardList(context: CommandContext, name: string, shards: number): number[] {
  const text = context.text(name);
  if (text === undefined) return [];
  return text.split(",").map((part) => {
    const shard = Number(part.trim());
    if (part.trim() !== "" && Number.isInteger(shard) && shard >= 0 && shard < shards) return shard;
    throw new UsageError(`--${name} takes shards between 0 and ${shards - 1}: ${JSON.stringify(part)} is none`);
  });
}
