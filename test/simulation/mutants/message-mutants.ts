/**
 * Planted defects of messages: requests and their answers, gathered answers, links between nodes, actors, barriers.
 *
 * Invariant: see `mutant.ts`.
 */
import type { Mutant } from "./mutant.ts";

const TWICE = "nothing delivered twice";
const FOREVER = "no operation waits for ever";

/** Of everything that is asked, told and waited for. */
export const MESSAGE_MUTANTS: readonly Mutant[] = [
  {
    id: "reply-matched-by-slot",
    what: "a link names a call by the slot of its asker alone: the late answer of a call that was given up answers the next",
    patches: [
      {
        file: "src/plane/link-calls",
        from: "{ kind: LINK_FRAME.REQUEST, type, shard, call: this.#nextId() };",
        to: "{ kind: LINK_FRAME.REQUEST, type, shard, call: ((asker.base ??= ++LinkCalls.askers) << 12) | slot };",
      },
      { file: "src/plane/link-calls", from: "#lastId = 0;", to: "#lastId = 0; static askers = 0;" },
    ],
    scene: "impatient",
    rules: ["linearizable", "nothing invented"],
  },
  {
    id: "calls-sent-again",
    what: "what was under way when a connection broke is sent again over the next, though it may have been handled",
    patches: [
      {
        file: "src/plane/link-calls",
        from: "for (const call of [...this.#open.values()]) {",
        to: "for (const call of [...this.#open.values()]) { if (call.frame !== undefined) continue;",
      },
      {
        file: "src/plane/link-calls",
        from: "const call = { id: frame.call, asker, type, slot, sequence };",
        to: "const call = { id: frame.call, asker, type, slot, sequence, frame };",
      },
      {
        file: "src/plane/link-calls",
        from: "this.#toldKnown = 0;\n    }",
        to: "this.#toldKnown = 0; for (const { frame } of this.#open.values()) send(frame);\n    }",
      },
    ],
    scene: "notes",
    rules: [TWICE],
  },
  {
    id: "tells-wait-for-company",
    what: "tells leave two at a time while asks leave at once: an ask overtakes what its sender told before",
    patches: [
      {
        file: "src/plane/link-calls",
        from: "this.#told++;\n",
        to: "{ this.#told++; if (asker.held === undefined) { asker.held = frame; return undefined; } this.#send(asker.held); asker.held = undefined; }\n",
      },
    ],
    scene: "notes",
    rules: ["messages of a sender in order"],
  },
  {
    id: "actor-wherever-somebody-is-up",
    what: "an actor whose node seems down is activated on the next node, while the first may still serve it",
    patches: [
      {
        file: "actors/actor-router",
        from: "shard: ownerOf(snapshot, vshard)",
        to: "shard: [...snapshot.copies.subarray(vshard * snapshot.replicationFactor, (vshard + 1) * snapshot.replicationFactor)].find((shard) => snapshot.states[shard] === 1) ?? ownerOf(snapshot, vshard)",
      },
      {
        file: "actors/shard",
        from: "if (vshard !== VSHARD_LISTED && snapshot.owners[vshard] !== shard)",
        to: "if (vshard !== VSHARD_LISTED && shard < 0)",
      },
    ],
    scene: "notes",
    rules: ["one activation of an actor"],
  },
  {
    id: "lost-worker-not-told",
    what: "what a dead worker held is not failed: its callers wait until their deadlines",
    patches: [
      {
        file: "src/plane/control-plane",
        from: "for (const client of this.#clients.values())\n            client.lose(shard, error);",
        to: "",
      },
      { file: "src/plane/client-plane", from: "if (previous !== undefined)", to: "if (shard < 0)" },
    ],
    scene: "patient",
    rules: [FOREVER],
  },
  {
    id: "lost-connection-not-told",
    what: "what was under way over a connection that broke is not failed: its callers wait until their deadlines",
    patches: [
      {
        file: "src/plane/link-calls",
        from: "for (const call of [...this.#open.values()]) {",
        to: "for (const call of []) {",
      },
    ],
    scene: "patient",
    rules: [FOREVER],
  },
  {
    id: "unavailable-counted-as-empty",
    what: "vshards that nobody may answer for count as answered with nothing: a search that lacks them is called complete",
    patches: [
      {
        file: "src/routing/part",
        from: "if (!excused && this.excused)",
        to: "if (excused) return;\n        if (!excused && this.excused)",
      },
    ],
    scene: "losses",
    rules: ["complete is complete"],
  },
  {
    id: "failed-part-counted-as-answered",
    what: "a part that failed counts as empty: a search that lacks it is called complete",
    patches: [{ file: "src/routing/part", from: "const error = this.#error;", to: "const error = undefined;" }],
    scene: "losses",
    rules: ["complete is complete"],
  },
  {
    id: "answers-with-all-it-holds",
    what: "a shard answers with every copy that it holds, whatever it was asked for: documents are found several times",
    patches: [
      {
        file: "actors/replication/vshard-gate",
        from: 'if (this.#scope === "whole")',
        to: 'if (this.#scope !== "none")',
      },
    ],
    scene: "late",
    rules: ["no document twice", "deleted is gone"],
  },
  {
    id: "barrier-counts-arrivals",
    what: "a barrier counts arrivals and not members: one that arrives twice stands for another",
    patches: [
      {
        file: "src/routing/barrier",
        from: "if (position < member.next)\n                continue;",
        to: "if (position < member.next && position < floor)\n                continue;",
      },
    ],
    scene: "ticks",
    rules: ["a phase has its members"],
  },
  {
    id: "early-arrival-lost",
    what: "when a phase begins, who had arrived at it before is forgotten",
    patches: [
      {
        file: "src/routing/barrier",
        from: "this.#phase = phase + 1;",
        to: "this.#phase = phase + 1; if (this.#phase < this.#phases) this.#counts[this.#half + this.#phase] = 0;",
      },
    ],
    scene: "ticks",
    rules: ["nobody waits in vain"],
  },
  {
    id: "barrier-one-short",
    what: "a phase is complete when all members but one have arrived",
    patches: [
      {
        file: "src/routing/barrier",
        from: "if (arrived < (quorum === 0 ? members : quorum))",
        to: "if (arrived < (quorum === 0 ? Math.max(1, members - 1) : quorum))",
      },
    ],
    scene: "ticks",
    rules: ["a phase has its members"],
  },
  {
    id: "late-arrival-counts-for-now",
    what: "an arrival for a tick that is over counts for the tick that runs",
    patches: [
      {
        file: "src/routing/barrier",
        from: "if (tick === this.#tick) {",
        to: "if (tick <= this.#tick) {",
      },
    ],
    scene: "latecomers",
    rules: ["what is over is over"],
  },
  {
    id: "silence-by-the-clock",
    what: "silence is what a clock shows since a member was heard, and not what was looked at",
    patches: [
      {
        file: "src/topology/failure-detector",
        from: "watched.silentMs += Math.min(elapsedMs, this.#creditLimitMs, sinceHeardMs);",
        to: "watched.silentMs = sinceHeardMs;",
      },
      {
        file: "src/topology/failure-detector",
        from: "const mayAccuse = !late || this.#wasLate;",
        to: "const mayAccuse = true;",
      },
    ],
    scene: "clocks",
    rules: ["nobody is down for a clock"],
  },
];
