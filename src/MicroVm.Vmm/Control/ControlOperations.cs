using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Virtio.Mmio;
using MicroVm.VirtioFs;
using MicroVm.VirtioFs.Exports;
using MicroVm.Vmm.Machine;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Control;

/// <summary>Carries out the requests of the control socket. Device thread only.</summary>
public sealed class ControlOperations
{
    private const int GuestLane = -1;
    private const string NotPaused = "a pause is under way already, or a vCPU is being created";
    private readonly VirtualMachine _machine;
    private readonly Func<long> _startMicroseconds;

    /// <summary>Operates <paramref name="machine"/>; <paramref name="startMicroseconds"/> tells how long its start took.</summary>
    public ControlOperations(VirtualMachine machine, Func<long> startMicroseconds)
    {
        _machine = machine;
        _startMicroseconds = startMicroseconds;
    }

    /// <summary>
    /// Carries out <paramref name="request"/> and calls <paramref name="answer"/> once, perhaps later (a pause waits for
    /// the vCPUs).
    /// </summary>
    /// <param name="request">The request.</param>
    /// <param name="takeFd">Takes the next descriptor that came with it; null when none did.</param>
    /// <param name="answer">Gets the response.</param>
    public void Execute(ControlRequest request, Func<SafeFd?> takeFd, Action<ControlResponse> answer)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(takeFd);
        ArgumentNullException.ThrowIfNull(answer);
        switch (request.Operation)
        {
            case ControlOperation.Info:
                answer(new ControlResponse { Info = Describe() });
                break;
            case ControlOperation.Trace:
                answer(new ControlResponse { Steps = Steps() });
                break;
            case ControlOperation.Pause:
                if (!_machine.Pause(() => answer(new ControlResponse())))
                {
                    answer(Failure(NotPaused));
                }

                break;
            case ControlOperation.Resume:
                answer(_machine.Resume() ? new ControlResponse() : Failure("a pause is still under way"));
                break;
            case ControlOperation.Save:
                Save(takeFd, answer);
                break;
            case ControlOperation.Stop:
                answer(new ControlResponse());
                _machine.End(VmmExitCode.Stopped);
                break;
            case ControlOperation.AddExport:
                answer(AddExport(request, takeFd()));
                break;
            case ControlOperation.RemoveExport:
                answer(RemoveExport(request));
                break;
            case ControlOperation.AttachNet:
                answer(NetOperations.Attach(_machine, request, takeFd));
                break;
            case ControlOperation.DetachNet:
                answer(NetOperations.Detach(_machine, request));
                break;
            case ControlOperation.SetNetLink:
                answer(NetOperations.SetLink(_machine, request));
                break;
            case ControlOperation.ResizeMemory:
                answer(MemoryOperations.Resize(_machine, request.AddedMiB));
                break;
            case ControlOperation.ResizeVcpus:
                ResizeVcpus(request.Vcpus, answer);
                break;
            default:
                answer(Failure($"operation {request.Operation} is not known"));
                break;
        }
    }

    private static ControlResponse Failure(string error) => new() { Error = error };

    private void ResizeVcpus(int count, Action<ControlResponse> answer)
    {
        if (_machine.Growth is { } growth)
        {
            growth.Resize(count, failure => answer(failure is null ? new ControlResponse() : Failure($"resizeVcpus: {failure}")));
        }
        else
        {
            answer(Failure("resizeVcpus: the VM keeps the vCPUs that it starts with (maxVcpus)"));
        }
    }

    private void Save(Func<SafeFd?> takeFd, Action<ControlResponse> answer)
    {
        SafeFd? state = takeFd(), memory = takeFd();
        if (state is null || memory is null)
        {
            state?.Dispose();
            answer(Failure("save: two descriptors, of the state file and the memory file, must come with the request (SCM_RIGHTS)"));
            return;
        }

        if (!_machine.Pause(() => answer(SaveParked(state, memory))))
        {
            state.Dispose();
            memory.Dispose();
            answer(Failure(NotPaused));
        }
    }

    private ControlResponse SaveParked(SafeFd state, SafeFd memory)
    {
        using (state)
        using (memory)
        {
            // The devices have let go of their queues, so that nothing can go on, however it ends.
            _machine.End(VmmExitCode.Stopped);
            try
            {
                MachineSnapshot.Save(_machine, state, memory);
                return new ControlResponse();
            }
            catch (Exception e) when (e is IOException or InvalidOperationException)
            {
                return Failure($"save: {e.Message}");
            }
        }
    }

    // The guest's time is a lane of its own: the vCPU's thread has no other steps.
    private List<TraceStep> Steps()
    {
        List<TraceStep> steps = [.. TraceStep.Of(_machine.Trace)];
        if (_machine.FirstRunTimestamp is not 0 and var first)
        {
            steps.Add(new TraceStep { Name = "the guest runs", Begin = first, End = StepRecorder.Now, Thread = GuestLane });
        }

        return steps;
    }

    private VmmInfo Describe()
    {
        Dictionary<string, long> counters = [];
        _machine.CollectCounters((name, value) => counters[name] = value);
        return new VmmInfo
        {
            State = _machine.IsPaused ? "paused" : "running",
            Pid = Libc.getpid(),
            HostKind = _machine.HostKind.Name,
            CommandLine = _machine.CommandLine,
            StartMicroseconds = _startMicroseconds(),
            Counters = counters,
        };
    }

    private ControlResponse AddExport(ControlRequest request, SafeFd? fd)
    {
        if (fd is null)
        {
            return Failure("addExport: no descriptor came with the request (SCM_RIGHTS)");
        }

        if (FindFs(request.Tag) is not { } fs || request.Name is null)
        {
            fd.Dispose();
            return Failure(request.Name is null ? "addExport: \"name\" is missing" : $"addExport: no virtio-fs device has the tag \"{request.Tag}\"");
        }

        return fs.TryAddExport(new VirtioFsExport(request.Name, fd, request.ReadOnly, request.Cache, request.HidesMounts, request.SharesSockets), out string? error)
            ? new ControlResponse()
            : Failure($"addExport: {error}");
    }

    private ControlResponse RemoveExport(ControlRequest request) =>
        FindFs(request.Tag) is not { } fs ? Failure($"removeExport: no virtio-fs device has the tag \"{request.Tag}\"")
        : request.Name is null ? Failure("removeExport: \"name\" is missing")
        : fs.RemoveExport(request.Name) ? new ControlResponse()
        : Failure($"removeExport: \"{request.Tag}\" has no entry \"{request.Name}\"");

    private VirtioFsDevice? FindFs(string? tag)
    {
        foreach (MmioTransport transport in _machine.Transports)
        {
            if (transport.Device is VirtioFsDevice fs && fs.Tag == tag)
            {
                return fs;
            }
        }

        return null;
    }
}
