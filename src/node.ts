/**
 * `shardloom/node`: what makes a process one node of several: founding a cluster, inviting and joining, and the options for `Cluster.start`.
 *
 * A barrel of its own, as it brings certificates with it, which workers have no use for.
 */
export {
  type ClusterCharter,
  foundCluster,
  type Invitation,
  inviteNodes,
  joinCluster,
  type NodeRecord,
  nodeOptions,
  type OpenInvitations,
  readNodeRecord,
} from "./node-directory.ts";
