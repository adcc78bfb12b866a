/** Nodes as users run them: processes of `shardloom node`, in directories below a root, told what to do by lines of standard input. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { askNode, type NodeRow, type NodeStatus } from "../../src/cli/node-control.ts";
import { eventually } from "./cluster.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const PROGRAM = fileURLToPath(new URL("./node-program.js", import.meta.url));

export type Said = Readonly<Record<string, unknown>>;

/** Ports that no system gives to whoever asks for any: nobody else takes one while its node is not there. */
const PORTS = { from: 15_000, to: 32_000 };

/** A port that nobody listens on at this moment. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(PORTS.from, PORTS.to);
    const server = createServer().listen(port, "127.0.0.1");
    try {
      await once(server, "listening");
    } catch {
      continue; // taken
    }
    server.close();
    await once(server, "close");
    return port;
  }
}

/** One process. */
export class NodeProcess {
  readonly #child: ChildProcess;
  readonly #said: Said[] = [];
  readonly #waiting: Set<() => void> = new Set();
  /** Its log. */
  log = "";
  code: number | undefined;

  constructor(root: string, name: string, args: readonly string[]) {
    const all = [MAIN, "node", "--json", "--data", join(root, name), "--run", PROGRAM, ...args];
    this.#child = spawn(process.execPath, all, { env: { ...process.env, NODE_NAME: name }, stdio: "pipe" });
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      this.#said.push(JSON.parse(line) as Said);
      this.#wake();
    });
    this.#child.stderr?.on("data", (chunk: Buffer) => {
      this.log += chunk.toString();
    });
    this.#child.on("exit", (code, signal) => {
      this.code = code ?? (signal === null ? -1 : -2);
      this.#wake();
    });
  }

  /** The next object with this event; each is given once. */
  async next(event: string, timeoutMs = 30_000): Promise<Said> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const at = this.#said.findIndex((said) => said["event"] === event);
      if (at >= 0) return this.#said.splice(at, 1)[0] as Said;
      if (this.code !== undefined) throw new Error(`node ended with ${this.code} before ${event}: ${this.log}`);
      if (performance.now() > deadline) throw new Error(`node did not say ${event} in ${timeoutMs} ms: ${this.log}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 200);
        this.#waiting.add(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** Tells the program to do something. @returns what it says then */
  ask(line: string): Promise<Said> {
    this.#child.stdin?.write(`${line}\n`);
    return this.next(line);
  }

  /** Sends a signal and waits for the end. @returns the exit code, negative after a signal */
  async end(signal: NodeJS.Signals): Promise<number> {
    if (this.code === undefined) {
      this.resume(); // one that stands still does not end
      this.#child.kill(signal);
    }
    while (this.code === undefined) await once(this.#child, "exit");
    return this.code;
  }

  pause(): void {
    this.#child.kill("SIGSTOP");
  }

  resume(): void {
    this.#child.kill("SIGCONT");
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}

/** Names of the nodes of {@link startThree}. */
export const NODE_NAMES = ["a", "b", "c"] as const;
export type NodeName = (typeof NODE_NAMES)[number];

/** Three processes that found a cluster, the last of them over WebTransport. */
export class ThreeNodes {
  readonly root: string;
  readonly #running: Map<NodeName, NodeProcess> = new Map();
  members = "";
  invitations: readonly Said[] = [];

  constructor(root: string) {
    this.root = root;
  }

  at(name: NodeName): NodeProcess {
    return this.#running.get(name) as NodeProcess;
  }

  start(name: NodeName, ...args: string[]): NodeProcess {
    const node = new NodeProcess(this.root, name, args);
    this.#running.set(name, node);
    return node;
  }

  /** Founds the cluster, with more options, and has all nodes up. */
  async found(...options: string[]): Promise<void> {
    const ports = await Promise.all(NODE_NAMES.map(freePort));
    this.members = NODE_NAMES.map((name, at) => `${name}=${at === 2 ? "https" : "tls"}://127.0.0.1:${ports[at]}`).join(
      ",",
    );
    const founder = this.start(
      "a",
      "--found",
      "demo",
      "--name",
      "a",
      "--members",
      this.members,
      "--vshards",
      "16",
      ...options,
    );
    this.invitations = [await founder.next("invitation"), await founder.next("invitation")];
    for (const { node, invitation } of this.invitations) this.start(node as NodeName, "--join", invitation as string);
    for (const name of NODE_NAMES) await this.at(name).next("serving");
    await this.allUp();
  }

  async seenBy(name: NodeName): Promise<NodeRow[]> {
    return [...(await this.statusOf(name)).nodes];
  }

  /** What `shardloom cluster status` shows, without a process for every look. */
  statusOf(name: NodeName): Promise<NodeStatus> {
    return askNode<NodeStatus>(join(this.root, name), { action: "status" });
  }

  /** Resolves when every node sees all others up. */
  async allUp(): Promise<void> {
    const isUp = ({ state, connected }: NodeRow): boolean => state === "up" && connected;
    await eventually(
      "all nodes are up for each other",
      async () => (await Promise.all(NODE_NAMES.map((name) => this.seenBy(name)))).every((nodes) => nodes.every(isUp)),
      30_000,
    );
  }

  async kill(): Promise<void> {
    for (const node of this.#running.values()) await node.end("SIGKILL");
  }
}
