/** A real `nats-server` with JetStream on loopback: its port is random, its store a temporary directory; it can be frozen, killed and started again. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import { connectNats, type NatsConnection, type NatsOptions } from "../../src/runtime/nats.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { eventually } from "./cluster.ts";

const PROGRAM = "nats-server";
const MISSING = `it must be installed, on Debian and Ubuntu by "apt-get install nats-server"`;
const START_MS = 20_000;

/** How a server is started, besides where. */
export interface NatsServerOptions {
  /** More arguments of the program. */
  readonly arguments?: readonly string[];
  /** @default true */
  readonly jetStream?: boolean;
  /** For {@link NatsServer.connect}. */
  readonly connection?: Partial<NatsOptions>;
}

export class NatsServer implements AsyncDisposable {
  readonly #directory: string;
  readonly #options: NatsServerOptions;
  readonly #connections: NatsConnection[] = [];
  #port = -1;
  #process: ChildProcess | undefined;

  private constructor(directory: string, options: NatsServerOptions) {
    this.#directory = directory;
    this.#options = options;
  }

  static async start(options: NatsServerOptions = {}): Promise<NatsServer> {
    const server = new NatsServer(await mkdtemp(join(tmpdir(), "shardloom-nats-")), options);
    try {
      await server.#run();
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  get url(): string {
    return `nats://127.0.0.1:${this.#port}`;
  }

  /** A connection that is closed with the server. */
  async connect(options: Partial<NatsOptions> = this.#options.connection ?? {}): Promise<NatsConnection> {
    const connection = await connectNats({ servers: [this.url], scheduler: systemScheduler, ...options });
    this.#connections.push(connection);
    return connection;
  }

  /** It does nothing from now on, and its connections stay. */
  async freeze(): Promise<void> {
    const { pid } = this.#process ?? {};
    this.#process?.kill("SIGSTOP");
    // Its threads stop one after the other.
    await eventually("the server is frozen", async () =>
      /^State:\s+T/m.test(await readFile(`/proc/${pid}/status`, "utf8")),
    );
  }

  thaw(): void {
    this.#process?.kill("SIGCONT");
  }

  /** Removes a stream with all that it has, as somebody with the wrong command does. */
  async deleteStream(name: string): Promise<void> {
    const manager = await jetstreamManager((await this.connect()).library);
    await manager.streams.delete(name);
  }

  /** Ends it, in order or as a crash does. */
  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGKILL"): Promise<void> {
    const running = this.#process;
    this.#process = undefined;
    if (running === undefined) return;
    const gone = new Promise((resolve) => running.once("exit", resolve));
    running.kill(signal);
    running.kill("SIGCONT");
    await gone;
  }

  /** Starts it where it was, with what it has stored. */
  async startAgain(): Promise<void> {
    await this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.#connections.splice(0)) await connection.close();
    await this.stop();
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #run(): Promise<void> {
    const own = ["-a", "127.0.0.1", "-p", String(this.#port)];
    const store = this.#options.jetStream === false ? [] : ["-js", "-sd", this.#directory];
    const started = spawn(PROGRAM, [...own, ...store, ...(this.#options.arguments ?? [])], {
      stdio: ["ignore", "ignore", "pipe"],
      // Where Debian has it, which is not on every user's path.
      env: { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/usr/local/sbin` },
    });
    if (started.pid !== undefined) this.#process = started;
    started.once("exit", () => {
      if (this.#process === started) this.#process = undefined;
    });
    const end = (): void => void started.kill("SIGKILL");
    process.once("exit", end);
    started.once("exit", () => process.off("exit", end));
    this.#port = await portOf(started);
  }
}

/** Resolves with the port when the server is ready. */
function portOf(started: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let said = "";
    let port: string | undefined;
    const late = setTimeout(() => fail(`it is not ready after ${START_MS} ms`), START_MS);
    const fail = (why: string): void => {
      clearTimeout(late);
      reject(new Error(`Cannot start ${PROGRAM}: ${why}\n${said}`));
    };
    started.once("error", (error) =>
      fail((error as NodeJS.ErrnoException).code === "ENOENT" ? MISSING : error.message),
    );
    started.once("exit", (code) => fail(`it ended with ${code}`));
    started.stderr?.on("data", (chunk: Buffer) => {
      if (said.length < 1e5) said += String(chunk);
      port ??= /client connections on .*:(\d+)/.exec(said)?.[1];
      if (port === undefined || !said.includes("Server is ready")) return;
      clearTimeout(late);
      resolve(Number(port));
    });
  });
}

/** Three servers that are one cluster: what has three replicas survives the loss of any one of them. */
export class NatsCluster implements AsyncDisposable {
  readonly servers: readonly NatsServer[];
  readonly #connections: NatsConnection[] = [];

  private constructor(servers: readonly NatsServer[]) {
    this.servers = servers;
  }

  static async start(): Promise<NatsCluster> {
    const ports = await freePorts(3);
    const routes = ports.map((port) => `nats://127.0.0.1:${port}`);
    const servers = await Promise.all(
      routes.map((route, at) =>
        NatsServer.start({
          arguments: [
            "--server_name",
            `s${at}`,
            "--cluster_name",
            "three",
            "--cluster",
            route,
            "--routes",
            routes.join(","),
          ],
        }),
      ),
    );
    return new NatsCluster(servers);
  }

  /** A connection to one of them, and to another one when that is lost. */
  async connect(): Promise<NatsConnection> {
    const connection = await connectNats({ servers: this.servers.map(({ url }) => url), scheduler: systemScheduler });
    this.#connections.push(connection);
    return connection;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.#connections.splice(0)) await connection.close();
    for (const server of this.servers) await server[Symbol.asyncDispose]();
  }
}

/** Ports that nobody listens on at present. */
async function freePorts(count: number): Promise<number[]> {
  const listeners = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    listeners.map(async (listener) => {
      listener.listen(0, "127.0.0.1");
      await once(listener, "listening");
      return (listener.address() as AddressInfo).port;
    }),
  );
  for (const listener of listeners) listener.close();
  return ports;
}
