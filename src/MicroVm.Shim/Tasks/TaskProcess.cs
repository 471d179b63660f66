using Google.Protobuf.WellKnownTypes;
using MicroVm.Shim.Api;
using MicroVm.Shim.Containers;
using MicroVm.Shim.Streams;

namespace MicroVm.Shim.Tasks;

/// <summary>A process as containerd sees it: the first of a container, or one of <c>exec</c>. Any thread.</summary>
internal sealed class TaskProcess
{
    private readonly Lock _lock = new();
    private readonly List<Action> _waiting = [];
    private Status _status = Status.Created;
    private ITaskProcess? _process;

    /// <summary>A process that is added, and not started.</summary>
    /// <param name="execId">Empty for the first process.</param>
    /// <param name="uris">Its streams.</param>
    internal TaskProcess(string execId, StdioUris uris) => (ExecId, Uris) = (execId, uris);

    /// <summary>Empty for the first process.</summary>
    internal string ExecId { get; }

    /// <summary>Its streams.</summary>
    internal StdioUris Uris { get; }

    /// <summary>Held while it is started, up to its start's event: its exit is published after that.</summary>
    internal Lock StartGate { get; } = new();

    /// <summary>Its exit status, once it has ended.</summary>
    internal uint ExitStatus { get; private set; }

    /// <summary>When it ended; null while it has not.</summary>
    internal Timestamp? ExitedAt { get; private set; }

    /// <summary>What an exec is to run.</summary>
    internal Oci.Config.Process? Specification { get; init; }

    /// <summary>Columns and rows that its terminal is to start with; zeros for none.</summary>
    internal (uint Width, uint Height) Size { get; set; }

    /// <summary>The process in the guest; null before it is there.</summary>
    internal ITaskProcess? Process
    {
        get
        {
            lock (_lock)
            {
                return _process;
            }
        }

        set
        {
            lock (_lock)
            {
                _process = value;
            }
        }
    }

    /// <summary>Its status.</summary>
    internal Status Status
    {
        get
        {
            lock (_lock)
            {
                return _status;
            }
        }
    }

    /// <summary>Changes the status of a process that has not ended.</summary>
    internal void Become(Status status)
    {
        lock (_lock)
        {
            if (_status != Status.Stopped)
            {
                _status = status;
            }
        }
    }

    /// <summary>Records its end, once, and answers the waiting calls.</summary>
    internal void End(uint exitStatus)
    {
        List<Action> waiting;
        lock (_lock)
        {
            if (_status == Status.Stopped)
            {
                return;
            }

            (_status, ExitStatus, ExitedAt) = (Status.Stopped, exitStatus, Timestamp.FromDateTime(DateTime.UtcNow));
            waiting = [.. _waiting];
            _waiting.Clear();
        }

        waiting.ForEach(w => w());
    }

    /// <summary>Calls <paramref name="action"/> when it has ended, at once when it has already.</summary>
    internal void WhenEnded(Action action)
    {
        lock (_lock)
        {
            if (_status != Status.Stopped)
            {
                _waiting.Add(action);
                return;
            }
        }

        action();
    }
}
