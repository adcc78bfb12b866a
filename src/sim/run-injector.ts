/** The faults of one run: drawn beforehand and on the way by its rates, or those of an earlier run again. */
import { planTimed } from "./fault-plan.ts";
import type { DrawnFault, FaultInjector } from "./fault-types.ts";
import { checkFaults, type FaultShape, resolveFaults } from "./faults.ts";
import { createFaultInjector, createReplayInjector } from "./injector.ts";
import type { WorldLoop } from "./loop.ts";
import type { ReplayPlan, ResolvedWorldOptions } from "./world-types.ts";

/** @throws {ShardloomError} as `checkFaults` and `resolveFaults` do. */
export function injectorOf(
  { options, replay }: { readonly options: ResolvedWorldOptions; readonly replay?: ReplayPlan | undefined },
  loop: WorldLoop,
  shape: FaultShape,
): FaultInjector {
  const onHit = ({ kind, site }: DrawnFault): void => loop.trace(`fault ${kind}`, site);
  if (replay?.faults !== undefined) {
    checkFaults(replay.faults, shape);
    return createReplayInjector(replay.faults, onHit);
  }
  const rates = resolveFaults(options.faults, loop.stream("swarm"), shape);
  const streamOf = (name: string): ReturnType<WorldLoop["stream"]> => loop.stream(name);
  return createFaultInjector(rates, streamOf, planTimed(rates, streamOf, shape, options.durationMs), onHit);
}
