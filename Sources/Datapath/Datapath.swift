/// The node's datapath.
public enum Datapath {}
