/**
 * Tells which members are up, suspect or down from what this thread has seen of them on its own monotonic clock.
 *
 * Invariant: nobody is accused for what the detector did not watch. Silence is counted in looks: each look adds the time since the
 * last one, at most {@link FailureDetectorOptions.lookIntervalMs} twice, and a look that comes late gives no verdict unless the one
 * before it was late too. Times that a peer writes into its messages are no input, so that no step of a peer's clock can kill it.
 *
 * Two kinds of members. A *node* sends heartbeats: `heard`. A *shard* has a heartbeat word in shared memory, which every look
 * reads: any change is a sign of life, and so is being parked (silence is what an idle worker does) or inside a native call
 * (which may last); only silence in JavaScript counts. Whether a call or a handler lasts too long is for `worker-monitor.ts` to judge.
 *
 * Source: receipt ages as in van Renesse, Minsky and Hayden, "A Gossip-Style Failure Detection Service" (1998); incarnations as in
 * Das, Gupta and Motivala, "SWIM" (DSN 2002), section 4.2. Divergence: fixed limits rather than estimated ones, as on one
 * host silence has one meaning.
 */
import { invalidArgument } from "../errors.ts";

/** What a detector says of a member. */
export type Liveness = "up" | "suspect" | "down";

/** One reading of a shard's shared words. */
export interface ShardProbe {
  /** Handlers and loop turns that have ended. Only its changes matter. */
  readonly progress: number;
  /** State changes of the heartbeat word. Only its changes matter. */
  readonly beats: number;
  readonly activity: "idle" | "js" | "native";
  /** Whether the thread has exited. */
  readonly dead: boolean;
}

/** A member is seen in another light. */
export interface LivenessChange {
  readonly member: string;
  readonly incarnation: number;
  readonly from: Liveness;
  readonly to: Liveness;
  readonly nowMs: number;
  /** For people: "silent for 1003 ms", "heard again", "its thread has exited". */
  readonly reason: string;
}

/** Limits of a detector. Each is a promise: the verdict is out at the latest so long after the last sign of life. */
export interface FailureDetectorOptions {
  /** Name of the node that watches: it never suspects itself. @default none */
  readonly self?: string;
  /** @default 600 */
  readonly suspectMs?: number;
  /** Above `suspectMs`. @default 1200 */
  readonly downMs?: number;
  /**
   * Time between two calls of {@link FailureDetector.look}, less than half of `suspectMs`. Two of them are room that the promises
   * need, for the look before the sign of life was missed and for one that is late: the verdict falls at the first
   * look after a silence of limit − 2 × interval. Heartbeats must come more often than `suspectMs` − 3 × interval. @default 100
   */
  readonly lookIntervalMs?: number;
  /** Told of each change while `heard` or `look` runs; may call the detector. */
  readonly onChange?: (change: LivenessChange) => void;
}

/** What became of a heartbeat: `taken`, out of date (`old`), or of a member that nobody watches (`unknown`). */
export type Receipt = "taken" | "old" | "unknown";

/** Times that the interval is reserved in each limit, and the most that one look can add to a silence. */
const LOOKS_IN_RESERVE = 2;

interface Watched {
  readonly member: string;
  readonly probe: (() => ShardProbe) | undefined;
  incarnation: number;
  /** Highest sequence number heard of this incarnation. */
  sequence: number;
  liveness: Liveness;
  /** Silence that was watched, up to the last look. */
  silentMs: number;
  /** When the last sign of life was seen. */
  heardAtMs: number;
  progress: number;
  beats: number;
}

/** Watches members. Not shared between threads; all times are of one monotonic clock. */
export class FailureDetector {
  readonly #self: string | undefined;
  readonly #suspectAfterMs: number;
  readonly #downAfterMs: number;
  readonly #creditLimitMs: number;
  readonly #onChange: (change: LivenessChange) => void;
  readonly #watched: Map<string, Watched> = new Map();
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #wasLate = false;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the limits leave no room for two looks, or are not in order. */
  constructor(options: FailureDetectorOptions = {}) {
    const { suspectMs = 600, downMs = 1200, lookIntervalMs = 100 } = options;
    const action = "create failure detector";
    if (!(lookIntervalMs > 0 && lookIntervalMs < Number.POSITIVE_INFINITY))
      throw invalidArgument(action, "lookIntervalMs", "a positive number", lookIntervalMs);
    const reserveMs = LOOKS_IN_RESERVE * lookIntervalMs;
    if (!(suspectMs > reserveMs)) {
      throw invalidArgument(action, "suspectMs", `more than ${reserveMs} (two looks)`, suspectMs);
    }
    if (!(downMs > suspectMs && downMs < Number.POSITIVE_INFINITY))
      throw invalidArgument(action, "downMs", `more than ${suspectMs} (suspectMs)`, downMs);
    this.#self = options.self;
    this.#suspectAfterMs = suspectMs - reserveMs;
    this.#downAfterMs = downMs - reserveMs;
    this.#creditLimitMs = reserveMs;
    this.#onChange = options.onChange ?? (() => undefined);
  }

  /** Watches a node from now on: it is up, and as if it had just been heard. Watching it again starts over. */
  watchNode(member: string, incarnation: number, nowMs: number): void {
    this.#watch(member, incarnation, nowMs, undefined);
  }

  /**
   * Watches a shard's worker from now on: it is up. Its replacement is watched by another call, with its own words.
   *
   * @param probe Reads the words; called once a look.
   */
  watchShard(member: string, incarnation: number, nowMs: number, probe: () => ShardProbe): void {
    this.#watch(member, incarnation, nowMs, probe);
  }

  /** Stops watching. @returns false when nobody of that name was watched */
  forget(member: string): boolean {
    return this.#watched.delete(member);
  }

  /** What is known of a member, or undefined when it is not watched. */
  livenessOf(member: string): Liveness | undefined {
    return this.#watched.get(member)?.liveness;
  }

  /**
   * Takes a node's heartbeat. One of the same incarnation with a higher sequence number, or of a newer incarnation, makes the node
   * up, also when it was down.
   *
   * @param incarnation Counts the node's restarts; older ones are what is left of a life before.
   * @param sequence Counts the heartbeats of one incarnation; repeated and overtaken ones say nothing new.
   * @param nowMs When it was received, on this host's clock.
   */
  heard(member: string, incarnation: number, sequence: number, nowMs: number): Receipt {
    const watched = this.#watched.get(member);
    if (watched === undefined || watched.probe !== undefined) return "unknown";
    requireTime(nowMs);
    const isNew = incarnation === watched.incarnation ? sequence > watched.sequence : incarnation > watched.incarnation;
    if (!isNew) return "old";
    watched.incarnation = incarnation;
    watched.sequence = sequence;
    this.#alive(watched, nowMs, "heard again");
    return "taken";
  }

  /** Reads the words of all shards and judges all members. Call it every `lookIntervalMs`. */
  look(nowMs: number): void {
    requireTime(nowMs);
    const elapsedMs = Math.max(0, nowMs - this.#lookedAtMs);
    const first = this.#lookedAtMs === Number.NEGATIVE_INFINITY;
    this.#lookedAtMs = Math.max(nowMs, this.#lookedAtMs);
    const late = first || elapsedMs > this.#creditLimitMs;
    const mayAccuse = !late || this.#wasLate;
    this.#wasLate = late && !first;
    for (const watched of [...this.#watched.values()]) {
      // A listener may have stopped or renewed the watch meanwhile.
      if (this.#watched.get(watched.member) !== watched) continue;
      // Between two looks nobody is silent for longer than since he was heard.
      const sinceHeardMs = Math.max(0, nowMs - watched.heardAtMs);
      watched.silentMs += Math.min(elapsedMs, this.#creditLimitMs, sinceHeardMs);
      this.#judge(watched, nowMs, mayAccuse);
    }
  }

  #watch(member: string, incarnation: number, nowMs: number, probe: (() => ShardProbe) | undefined): void {
    requireTime(nowMs);
    if (!Number.isSafeInteger(incarnation) || incarnation < 0) {
      throw invalidArgument("watch member", "incarnation", "an integer of at least 0", incarnation);
    }
    const { progress, beats } = probe?.() ?? { progress: 0, beats: 0 };
    this.#watched.set(member, {
      member,
      probe,
      incarnation,
      sequence: -1,
      liveness: "up",
      silentMs: 0,
      heardAtMs: nowMs,
      progress,
      beats,
    });
  }

  #judge(watched: Watched, nowMs: number, mayAccuse: boolean): void {
    if (watched.member === this.#self) return;
    const life = watched.probe === undefined ? undefined : readLife(watched, watched.probe());
    if (life === "dead") {
      this.#change(watched, "down", nowMs, "its thread has exited");
      return;
    }
    if (life !== undefined) this.#alive(watched, nowMs, life);
    if (!mayAccuse) return;
    const { silentMs, liveness } = watched;
    const reason = `silent for ${Math.round(silentMs)} ms`;
    if (silentMs >= this.#downAfterMs) this.#change(watched, "down", nowMs, reason);
    else if (silentMs >= this.#suspectAfterMs && liveness === "up") this.#change(watched, "suspect", nowMs, reason);
  }

  #alive(watched: Watched, nowMs: number, reason: string): void {
    watched.silentMs = 0;
    watched.heardAtMs = nowMs;
    this.#change(watched, "up", nowMs, reason);
  }

  #change(watched: Watched, to: Liveness, nowMs: number, reason: string): void {
    const { member, incarnation, liveness: from } = watched;
    if (from === to) return;
    watched.liveness = to;
    this.#onChange({ member, incarnation, from, to, nowMs, reason });
  }
}

/** The sign of life in a reading, if there is one. */
function readLife(watched: Watched, probe: ShardProbe): string | undefined {
  const { progress, beats, activity, dead } = probe;
  if (dead) return "dead";
  const moved = progress !== watched.progress || beats !== watched.beats;
  watched.progress = progress;
  watched.beats = beats;
  if (moved) return "it makes progress";
  switch (activity) {
    case "idle":
      return "it is parked";
    case "native":
      return "it is in a native call";
    case "js":
      return undefined;
  }
}

function requireTime(nowMs: number): void {
  if (!Number.isFinite(nowMs)) throw invalidArgument("observe members", "nowMs", "a finite number", nowMs);
}
