using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;
using MicroVm.Shim.Streams;
using MicroVm.Ttrpc;
using Namespace = MicroVm.Oci.Config.Namespace;

namespace MicroVm.Shim.Containers;

/// <summary>Creates containers: boots a VM and sets the container up in it. What fails is undone.</summary>
internal static class VmContainerFactory
{
    /// <summary>Creates a container, whose first process then waits to be started.</summary>
    /// <exception cref="SandboxException">It cannot be created.</exception>
    /// <exception cref="SpecException">Its configuration is malformed, or asks for what is not supported.</exception>
    internal static VmContainer Create(ContainerRequest request)
    {
        Prerequisites.Check();
        VmParts? parts = null;
        StdioEnds? ends = null;
        try
        {
            ends = StdioEnds.Open(request.Stdio, new ProcessName(request.Namespace, request.Id));
            ContainerStore store = new(request.Runtime.Root);
            parts = new VmParts(Path.Combine(store.FolderOf(request.Id), "vm", "vsock"));
            Build(request, parts, store, ends);
            return new VmContainer(request, parts);
        }
        catch (Exception e)
        {
            ends?.Dispose();
            parts?.Init?.Close();
            parts?.EndVm();
            parts?.Remove();
            if (e is TtrpcException or LinuxException)
            {
                throw new SandboxException(e.Message, e);
            }

            throw;
        }
    }

    private static void Build(ContainerRequest request, VmParts parts, ContainerStore store, StdioEnds ends)
    {
        byte[] bytes = SpecReader.ReadBundleBytes(request.Bundle);
        Spec spec = SpecReader.ParseBundle(bytes);
        string rootfs = SpecValidator.Validate(spec, request.Bundle);
        HookRunner.Check(spec.Hooks);
        List<string> warnings = [];
        VmShape shape = VmShape.Resolve(spec, request.Vm, Host.MemoryMiB, Environment.ProcessorCount);
        RuntimeFiles files = RuntimeFiles.Locate(request.Vm.Kernel, request.Vm.Initramfs) with { PrivateImages = request.Vm.PrivateImages };
        (HostCgroup cgroup, _) = HostCgroup.Of(spec.Linux?.CgroupsPath, request.Id, IsSystemd(spec.Linux?.CgroupsPath));
        cgroup.RefuseFrozen();
        using ContainerPlan plan = PlanBuilder.Build(spec, request.Id, request.Bundle, rootfs, warnings);
        GuestDefaults.Add(plan.Spec.Sysctls, GuestDefaults.OfHost);
        CallerLimits.Add(plan.Spec.Process);
        plan.Spec.Process.Terminal = request.Stdio.Terminal;
        warnings.ForEach(w => request.Log.Write(LogLevel.Warning, w));
        string? networkPath = EnterNetwork(request, spec);
        VmNetwork network = parts.Network = VmNetwork.Prepare(spec, shape.Vcpus);
        ContainerState state = ContainerState.Creating(spec, request.Id, request.Bundle, rootfs, ProcessIdentity.Current, cgroup) with
        {
            VmMemoryMiB = shape.MemoryMiB,
            NetworkNamespace = networkPath,
        };
        parts.Record = ContainerRecord.Create(store, state);
        parts.Cgroup = cgroup;
        cgroup.WarnOfProcesses(w => request.Log.Write(LogLevel.Warning, w));
        cgroup.Create();
        HostLimits.ApplyAtCreation(
            cgroup, spec.Linux?.Resources, shape.MemoryMiB + files.CopiesMiB, w => request.Log.Write(LogLevel.Warning, w));
        GuestReady.MakeFolder(parts.Vsock);
        using GuestReady ready = GuestReady.Listen(parts.Vsock);
        parts.Owner.Do(() => StartVm(request, parts, spec, files, shape, plan));

        // What needs no guest is done while it boots.
        Vmm vmm = parts.Vmm!;
        vmm.ReadConsole();
        AdjustOutOfMemoryScore(vmm.Process.Pid, spec.Process?.OomScoreAdj ?? 0);
        parts.Record.Change(s => s with { Vmm = ProcessIdentity.Of(vmm.Process.Pid) });
        parts.Configuration = KeptConfiguration.Keep(store.FolderOf(request.Id), bytes, spec);
        NetworkView view = network.Read();
        ready.Wait(vmm, request.Vm.StartTimeout);
        Guest guest = parts.Guest = Guest.Connect(vmm, parts.Vsock, request.Vm.StartTimeout);
        parts.Sockets = HostSocketRelay.Start(parts.Vsock, plan.Sources.Sockets, more: plan.Exports.Exists(e => e.ShowsSockets));
        CreateInGuest(request, parts, plan, view, ends);
        void Warn(string text) => request.Log.Write(LogLevel.Warning, text);
        parts.Mounts = MountFollower.Start(plan.Exports, vmm, guest, Warn);
        parts.SocketFollower = SocketFollower.Start(
            plan.Exports, parts.Sockets, Sandbox.Vm.HostSocket.FirstPort + (uint)plan.Sources.Sockets.Count, guest, Warn);
        guest.Agent.DefaultTimeout = GuestPatience.Call;

        // Hooks of the runtime's namespace find the container's network by this process, whose first thread is in it.
        OciState document = state.ToOci(ContainerStatus.Creating);
        HookRunner.Run("prestart", spec.Hooks?.Prestart, document);
        HookRunner.Run("createRuntime", spec.Hooks?.CreateRuntime, document);
        parts.Record.Change(s => s with { Status = ContainerStatus.Created });
    }

    /// <summary>
    /// Takes the process's first thread into the container's network namespace. A new one is made by that, and is then the one that
    /// <paramref name="spec"/> names.
    /// </summary>
    /// <returns>The path that the bundle names; null for a new namespace.</returns>
    private static string? EnterNetwork(ContainerRequest request, Spec spec)
    {
        List<Namespace>? namespaces = spec.Linux?.Namespaces;
        int at = namespaces?.FindIndex(n => n?.Type == NamespaceTypes.Network) ?? -1;
        if (at < 0)
        {
            // The host's network, which is refused by name.
            return null;
        }

        string? path = namespaces![at].Path;
        request.Main.EnterNetwork(path);
        if (!string.IsNullOrEmpty(path))
        {
            return path;
        }

        namespaces[at] = namespaces[at] with { Path = MainThread.NetworkPath };
        return null;
    }

    private static void StartVm(ContainerRequest request, VmParts parts, Spec spec, RuntimeFiles files, VmShape shape, ContainerPlan plan)
    {
        using SafeFd? unified = parts.Cgroup!.JoinThread();
        parts.Vmm = Vmm.Start(
            files, shape, parts.Vsock, plan.Exports, parts.Network!, request.Vm.ConsoleLog, unified, spec.Linux?.UidMappings, spec.Linux?.GidMappings);
        parts.Network!.Inherited();
        request.Log.Write(LogLevel.Debug, $"started microvm-vmm {parts.Vmm.Process.Pid}: {shape.MemoryMiB} MiB, {shape.Vcpus} vCPUs");
    }

    private static void CreateInGuest(ContainerRequest request, VmParts parts, ContainerPlan plan, NetworkView view, StdioEnds ends)
    {
        Guest guest = parts.Guest!;
        _ = guest.Call("set up the network", agent =>
        {
            parts.Network!.SetUp(parts.Vmm!, agent, view);
            return 0;
        });
        GuestStdio stdio = guest.Call("create container", _ => GuestStdio.Connect(parts.Vsock, ends, request.Stdio.Terminal, request.Vm.StartTimeout));
        parts.Init = new VmProcess(guest.Agent, new ProcessId { ContainerId = request.Id }, stdio);
        CreateContainerRequest create = new() { ContainerId = request.Id, Spec = plan.Spec, Stdio = stdio.Ports };
        CreateContainerResponse created = guest.Call("create container", agent => agent.CreateContainer(create));
        if (MissingDevices.Describe(plan.Spec.Devices, created.MissingDevices) is { } missing)
        {
            request.Log.Write(LogLevel.Warning, missing);
        }

        stdio.Start();
    }

    /// <summary>The VM's memory is the container's, not this process's, whose score is containerd's.</summary>
    private static void AdjustOutOfMemoryScore(int pid, int score)
    {
        try
        {
            File.WriteAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/oom_score_adj"), score.ToString(CultureInfo.InvariantCulture));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It has ended, which is found out by whoever waits for it.
        }
    }

    // slice:prefix:name, which kubelet's systemd driver makes.
    private static bool IsSystemd(string? path) => path?.Split(':').Length == 3;
}
