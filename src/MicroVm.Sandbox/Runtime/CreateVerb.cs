using MicroVm.Linux.Tracing;
using MicroVm.Oci;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Creates containers: starts the process on the host, runs the hooks of the runtime's namespace, writes the pid file.</summary>
internal sealed class CreateVerb(RuntimeContext runtime, DeleteVerb deletion)
{
    /// <summary>Creates a container that waits for its start.</summary>
    internal void Create(RunRequest request)
    {
        using ProxyClient process = Launch(request, foreground: false);
        _ = Establish(process, request, new ProcessHandles(), out _);
        runtime.MakeMissingTemplate(process);
    }

    /// <summary>Starts the process on the host that makes the container.</summary>
    internal ProxyClient Launch(RunRequest request, bool foreground)
    {
        using StepScope step = runtime.Trace.Steps.Begin("start the sandbox process and the proxy");
        Prerequisites.Check();
        HostStreams.Prepare();
        string bundle = WorkingBundle(request.Bundle);
        if (!File.Exists(Path.Combine(bundle, SpecReader.FileName)))
        {
            throw new SpecException($"JSON specification file {SpecReader.FileName} not found");
        }

        byte[] configuration = SpecReader.ReadBundleBytes(bundle);
        ContainerId.Check(request.Id);
        ProxyRequest proxyRequest = runtime.Request(request.Id) with
        {
            Bundle = bundle,
            Configuration = configuration,
            Vm = Absolute(request.Vm),
            Foreground = foreground,
            Transient = foreground && !request.Keep,
            ConsoleSocket = request.ConsoleSocket is null ? null : Path.GetFullPath(request.ConsoleSocket),
        };
        Oci.Config.Spec spec = SpecReader.ParseBundle(configuration);
        ProxyClient process = SandboxFinder.Find(spec, runtime.Store) is { } target
            ? ProxyClient.Join(proxyRequest, spec, target, runtime.Store.FolderOf(target.Member.Id), runtime.Log)
            : ProxyClient.Create(proxyRequest, spec, runtime.Log);
        runtime.LogStep("the container's process is started");
        return process;
    }

    /// <summary>The command's part of a creation: hooks of the runtime's namespace, the pid file and the pidfd.</summary>
    internal ContainerState Establish(ProxyClient process, RunRequest request, ProcessHandles handles, out bool hasTerminal)
    {
        ContainerState? state = null;
        try
        {
            using StepScope step = runtime.Trace.Steps.Begin("create the container");
            ProxyMessage created = process.Expect(ProxyMessageKind.Created);
            (state, hasTerminal) = (created.State!, created.Terminal);
            process.CompleteView();
            OciState document = state.ToOci(ContainerStatus.Creating);
            HookRunner.Run("prestart", state.Hooks?.Prestart, document);
            HookRunner.Run("createRuntime", state.Hooks?.CreateRuntime, document);
            handles.Tell(process.Process, request.PidFile, request.PidfdSocket, ProcessHandles.OfInit);
            process.Proceed();
            _ = process.Expect(ProxyMessageKind.Ready);
            return state with { Status = ContainerStatus.Created };
        }
        catch
        {
            process.Abandon();
            handles.Withdraw();
            Forget(request.Id, process, state ?? process.Failed);
            throw;
        }
    }

    // The proxy process's working folder is another one.
    private static Vm.VmOptions Absolute(Vm.VmOptions options) => options with
    {
        Kernel = options.Kernel is null ? null : Path.GetFullPath(options.Kernel),
        Initramfs = options.Initramfs is null ? null : Path.GetFullPath(options.Initramfs),
        ConsoleLog = options.ConsoleLog is null ? null : Path.GetFullPath(options.ConsoleLog),
    };

    private static string WorkingBundle(string bundle)
    {
        string path = Path.GetFullPath(bundle);
        return Directory.Exists(path) ? path : throw new SandboxException($"chdir {bundle}: no such file or directory");
    }

    /// <summary>
    /// What remains to be done for a creation that failed: a proxy process that was killed has left its state, and poststop hooks run
    /// for every container that was there (runtime.md, "Lifecycle").
    /// </summary>
    private void Forget(string id, ProxyClient process, ContainerState? state)
    {
        if (runtime.Store.Find(id) is { } left && left.Init.Pid == process.Process?.Pid && !left.Init.IsAlive())
        {
            deletion.Destroy(left);
        }
        else if (state is not null)
        {
            runtime.WarnOnly(() => HookRunner.Run("poststop", state.Hooks?.Poststop, state.ToOci(ContainerStatus.Stopped)));
        }
    }
}
