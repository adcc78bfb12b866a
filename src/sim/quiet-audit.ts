/**
 * The audit of the quiet phase: what copies hold is asked of the program itself, of every node, and compared over all of them.
 *
 * Invariant: where no node is lost, all copies of every vshard have the LSN and the hash of its primary; where one is, no two have different hashes
 * at one LSN. This sees what `copy-contents.ts` does not, which reads the rows alone: what is known of keyed writes, and LSNs.
 */
import { AuditBook, type AuditedVshard, type AuditReport } from "../cluster-audit.ts";
import { describeValue, ShardloomError } from "../errors.ts";
import { holdsCopy, type TopologySnapshot } from "../topology/snapshot.ts";
import type { Violation } from "./history-types.ts";
import type { QuietPhase } from "./quiet-phase.ts";

/** Simulated time in which all copies must be found equal. */
const AUDIT_LIMIT_MS = 30_000;
/** Simulated time that a node's own audit may take, and between two looks. */
const NODE_LIMIT_MS = 5_000;
const LOOK_MS = 1_000;

/** Audits all nodes, again until what is under way has ended. @returns what is not as it must be */
export async function judgeCopies(phase: QuietPhase): Promise<readonly Violation[]> {
  const { loop, services, drive } = phase;
  const isWhole = services.every(({ lost }) => !lost);
  const endUs = loop.nowUs + AUDIT_LIMIT_MS * 1000;
  for (;;) {
    const { reports, wrong } = await auditNodes(phase);
    const topology = services.find(({ serving }) => serving !== undefined)?.serving?.cluster.topology;
    if (topology === undefined) return []; // no node serves: that is a violation already
    const found = isWhole ? [...wrong, ...differences(reports, topology, true)] : differences(reports, topology, false);
    if (found.length === 0) return [];
    if (loop.nowUs >= endUs)
      return found.slice(0, 1).map((message) => ({ rule: "audit finds copies equal", message, entries: [] }));
    await drive(LOOK_MS);
  }
}

/** @returns reports of nodes, and why others have none */
async function auditNodes({ services, loop, drive }: QuietPhase): Promise<{ reports: AuditReport[]; wrong: string[] }> {
  const reports: AuditReport[] = [];
  const failed = new Map<string, string>();
  const asked = services.filter(({ serving }) => serving !== undefined);
  for (const { name, node, serving } of asked) {
    failed.set(name, "it gives no answer");
    const ended = (reason?: string): void => {
      if (reason === undefined) failed.delete(name);
      else failed.set(name, reason);
      if (--open === 0) loop.stop();
    };
    node.main?.post(0, "audit", () => {
      serving?.cluster.audit({ timeoutMs: NODE_LIMIT_MS }).then(
        (report) => {
          reports.push(report);
          ended();
        },
        (error: unknown) => ended(ShardloomError.is(error) ? `${error.code}, ${error.message}` : describeValue(error)),
      );
    });
  }
  let open = asked.length;
  if (open > 0) await drive(2 * NODE_LIMIT_MS);
  return { reports, wrong: [...failed].map(([name, reason]) => `${name} cannot be audited: ${reason}`) };
}

/** What copies differ in, in words. @param isWhole Whether every copy must be there, and level */
function differences(reports: readonly AuditReport[], topology: TopologySnapshot, isWhole: boolean): string[] {
  const book = new AuditBook();
  for (const { vshards } of reports)
    for (const { vshard, copies } of vshards)
      for (const { shard, role, lsn, hash, verdict } of copies)
        if (verdict !== "silent") book.add(shard, [{ vshard, lsn, hash, role }]);
  const shards = Array.from({ length: topology.shards }, (_, shard) => shard);
  return Array.from({ length: topology.vshards }, (_, vshard) =>
    book.judge(
      vshard,
      shards.filter((shard) => holdsCopy(topology, shard, vshard)),
    ),
  ).flatMap((audited) => describe(audited, isWhole));
}

function describe({ vshard, copies }: AuditedVshard, isWhole: boolean): string[] {
  const wrong = copies.filter(({ verdict }) => verdict === "differs" || (isWhole && verdict !== "same"));
  if (wrong.length === 0) return [];
  const each = copies.map(
    ({ shard, role, lsn, hash, verdict }) => `${role} on shard ${shard} has ${hash} at ${lsn} (${verdict})`,
  );
  return [`copies of vshard ${vshard} are not equal: ${each.join(", ")}`];
}
