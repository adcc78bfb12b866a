/** The actor that holds a shard's thread for bench `vector-search`, without using a core, until a file is gone. */
import { writeFileSync } from "node:fs";
import { type ActorDefinition, defineActor } from "../../src/index.ts";
import { waitAt } from "../../test/support/gate.ts";

/** What a hold is told: the file that it waits for, the one that it makes once it holds, and how long at most. */
export interface HoldCommand {
  readonly path: string;
  readonly begun: string;
  readonly milliseconds: number;
}

export const holder: ActorDefinition<null, { hold: (state: null, command: HoldCommand) => number }> = defineActor({
  name: "holder",
  init: (): null => null,
  handlers: {
    hold(_: null, { path, begun, milliseconds }: HoldCommand): number {
      const startedMs = performance.now();
      writeFileSync(begun, "");
      waitAt(path, milliseconds);
      return performance.now() - startedMs;
    },
  },
});
