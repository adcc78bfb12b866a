/**
 * Many calls that go by one signal: each is told when it fires, and the platform knows of one listener, as it warns of a leak when there are more than ten.
 *
 * Invariant: a listener is called once at most, in the order in which they came, and never after it was taken back. The signal keeps no listener of
 * ours while nobody listens.
 */

const listening: WeakMap<AbortSignal, Set<() => void>> = new WeakMap();

/** Calls `listener` when the signal fires, which it has not yet. The listener must not throw. @returns takes that back; harmless when it is over */
export function onceAborted(signal: AbortSignal, listener: () => void): () => void {
  const listeners = listening.get(signal) ?? begin(signal);
  const entry = (): void => listener(); // the same listener may be given twice
  listeners.add(entry);
  return () => {
    if (listeners.delete(entry) && listeners.size === 0) end(signal);
  };
}

function begin(signal: AbortSignal): Set<() => void> {
  const listeners = new Set<() => void>();
  listening.set(signal, listeners);
  signal.addEventListener("abort", fire, { once: true });
  return listeners;
}

function end(signal: AbortSignal): void {
  listening.delete(signal);
  signal.removeEventListener("abort", fire);
}

/** One function for all signals: it is told which one has fired. */
function fire({ target }: Event): void {
  const signal = target as AbortSignal;
  const listeners = listening.get(signal);
  listening.delete(signal);
  for (const listener of listeners ?? []) listener(); // those that others take back meanwhile are left out
}
