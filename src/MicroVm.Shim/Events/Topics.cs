namespace MicroVm.Shim.Events;

/// <summary>containerd's topics of task events, and the types of what is published there.</summary>
internal static class Topics
{
    internal static readonly EventKind Create = new("/tasks/create", "containerd.events.TaskCreate");
    internal static readonly EventKind Start = new("/tasks/start", "containerd.events.TaskStart");
    internal static readonly EventKind Exit = new("/tasks/exit", "containerd.events.TaskExit");
    internal static readonly EventKind Delete = new("/tasks/delete", "containerd.events.TaskDelete");
    internal static readonly EventKind ExecAdded = new("/tasks/exec-added", "containerd.events.TaskExecAdded");
    internal static readonly EventKind ExecStarted = new("/tasks/exec-started", "containerd.events.TaskExecStarted");
    internal static readonly EventKind OutOfMemory = new("/tasks/oom", "containerd.events.TaskOOM");
    internal static readonly EventKind Paused = new("/tasks/paused", "containerd.events.TaskPaused");
    internal static readonly EventKind Resumed = new("/tasks/resumed", "containerd.events.TaskResumed");
}
