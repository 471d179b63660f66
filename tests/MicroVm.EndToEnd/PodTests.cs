using System.Diagnostics;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>Containers that join the namespaces of another one: as the containers of a pod, they are in its VM.</summary>
public sealed class PodTests
{
    private const string Forever = "echo ready; while :; do sleep 0.2; done";

    [SkippableFact]
    public void ContainersShareWhatTheyAskForAndNothingElse()
    {
        Installation.RequireRuntime();
        using Bundle firstBundle = Bundle.Create("echo first >/tmp/own; busybox nc -ll -p 4455 -e echo over-localhost & " + Forever);
        firstBundle.Config["hostname"] = "first";
        using DetachedContainer first = Started(firstBundle, null);
        using Bundle secondBundle = Bundle.Create("hostname; until nc 127.0.0.1 4455 </dev/null; do sleep 0.1; done; ls /tmp; ps | grep -c '[n]c -ll'; " + Forever);
        using DetachedContainer second = Started(secondBundle, first, "network", "ipc", "uts", "pid");
        Assert.Equal("first\nover-localhost\n2\nready\n", second.Output);
        using Bundle thirdBundle = Bundle.Create("hostname; nc 127.0.0.1 4455 </dev/null; ps | grep -c '[n]c -ll'; echo $$; " + Forever);
        thirdBundle.Config["hostname"] = "third";
        using DetachedContainer third = Started(thirdBundle, second, "network");
        Assert.Equal("third\nover-localhost\n0\n1\nready\n", third.Output);

        // What is done to one leaves the others alone.
        second.Call("pause").EnsureSuccess();
        Assert.Equal(("running", "paused", "running"), (first.Status, second.Status, third.Status));
        Assert.Equal("third\n", third.Raw("exec", third.Id, "hostname").EnsureSuccess().StandardOutput);
        second.Call("resume").EnsureSuccess();
        third.Call("update", "--pids-limit", "33").EnsureSuccess();
        Assert.Equal(["33"], new[] { first, second, third }.Select(PidsLimit).Where(l => l == "33"));
        third.Raw("kill", third.Id, "KILL").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(third.Pid));
        Assert.Equal(("running", "running", "stopped"), (first.Status, second.Status, third.Status));
        third.Call("delete").EnsureSuccess();
        Assert.Equal("first\n", second.Raw("exec", second.Id, "hostname").EnsureSuccess().StandardOutput);
    }

    /// <summary>By FIFOs that the host or one of them made, and by a socket.</summary>
    [SkippableFact]
    public void ContainersMeetInASharedFolder()
    {
        Installation.RequireRuntime();
        string folder = Directory.CreateTempSubdirectory("microvm-pod-").FullName;
        try
        {
            Shell.Run("mkfifo", Path.Combine(folder, "hosts")).EnsureSuccess();
            using Bundle firstBundle = Bundle.Create(
                "mkfifo /vol/own; unix-peer echo /vol/socket >/dev/null & (echo got $(cat /vol/hosts); echo got $(cat /vol/own); echo both) & " + Forever);
            using Bundle secondBundle = Bundle.Create(
                "echo by-hosts >/pod/hosts; echo by-own >/pod/own; until [ -S /pod/socket ]; do sleep 0.1; done; echo by-socket | unix-peer connect /pod/socket; " + Forever);
            firstBundle.AddMount("/vol", folder, "bind", "rbind", "rw");
            secondBundle.AddMount("/pod", folder, "bind", "rbind", "rw");
            firstBundle.AddGuestProgram("unix-peer");
            secondBundle.AddGuestProgram("unix-peer");
            using DetachedContainer first = Started(firstBundle, null);
            using DetachedContainer second = Started(secondBundle, first, "network", "ipc");
            first.WaitForOutput("both");
            Assert.Contains("got by-hosts\ngot by-own\n", first.Output, StringComparison.Ordinal);
            Assert.Equal("by-socket\nready\n", second.Output);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [SkippableFact]
    public void ContainersAreInOneVmWhichEndsWithTheLast()
    {
        Installation.RequireKvm();
        using Bundle firstBundle = Bundle.Create(Forever), secondBundle = Bundle.Create("trap 'exit 5' TERM; " + Forever);
        string cgroup = $"/microvm-e2e/{Guid.NewGuid():N}";
        firstBundle.Linux["cgroupsPath"] = cgroup;
        using DetachedContainer first = Started(firstBundle, null);
        using DetachedContainer second = Started(secondBundle, first, "network", "ipc");
        int vmm = first.Vmm, sandbox = first.Sandbox;
        Assert.Equal((vmm, sandbox), (second.Vmm, second.Sandbox));

        // The first goes, and what was in its cgroup goes on.
        first.Call("delete", "--force").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(first.Pid));
        Assert.Empty(DetachedContainer.CgroupFolders(cgroup));
        Assert.True(ProcessTree.IsAlive(vmm));
        Assert.Equal("running", second.Status);
        Assert.Equal("still\n", second.Raw("exec", second.Id, "echo", "still").EnsureSuccess().StandardOutput);

        // Others join whoever is left, also under the name of one that has gone.
        using Bundle thirdBundle = Bundle.Create(Forever);
        using DetachedContainer third = Started(thirdBundle, second, "network", "uts");
        Assert.Equal(vmm, third.Vmm);
        third.Call("delete", "--force").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(third.Pid));
        second.Raw("kill", second.Id, "TERM").EnsureSuccess();
        Assert.Equal(5, DetachedContainer.Reap(second.Pid));
        DetachedContainer.Eventually(() => !ProcessTree.IsAlive(vmm) && !ProcessTree.IsAlive(sandbox), "the VM outlives its containers");
        second.Call("delete").EnsureSuccess();
        Assert.Empty(Directory.EnumerateFileSystemEntries(first.Root));
    }

    [SkippableTheory]
    [InlineData("pid")]
    [InlineData("network")]
    public void RunReturnsWithTheEndOfItsOwnContainer(string kind)
    {
        Installation.RequireRuntime();
        using Bundle firstBundle = Bundle.Create("until [ -e /stop ]; do sleep 0.1; done; exit 3"), laterBundle = Bundle.Create(Forever), bundle = Bundle.Create("echo joined; exit 4");
        using DetachedContainer first = new(firstBundle), later = new(laterBundle, first.Root), joining = new(bundle, first.Root);
        firstBundle.Save();
        using Process run = first.Begin("out", "run", "--bundle", firstBundle.Path, "--pid-file", first["pid"], first.Id);
        DetachedContainer.Eventually(() => first.Raw("state", first.Id).StandardOutput.Contains("running", StringComparison.Ordinal), "the first does not run");

        // One that joins, beside the first, which goes on.
        Join(bundle, kind, $"/proc/{first.Pid}/ns/{(kind == "network" ? "net" : kind)}");
        bundle.Save();
        using Process beside = joining.Begin("out", "run", "--bundle", bundle.Path, joining.Id);
        Assert.Equal(4, DetachedContainer.End(beside));
        Assert.Equal("joined\n", joining.Output);
        Assert.False(run.HasExited);

        // The first, while one that joined goes on.
        Join(laterBundle, "network", $"/proc/{first.Pid}/ns/net");
        later.Create().EnsureSuccess();
        later.Call("start").EnsureSuccess();
        later.WaitForOutput("ready");
        // Its status is of no interest: the first may end, and with it this process, before it is told.
        _ = first.Raw("exec", first.Id, "touch", "/stop");
        Assert.Equal(3, DetachedContainer.End(run));
        Assert.Equal("running", later.Status);
    }

    [SkippableTheory]
    [InlineData("sandbox")]
    [InlineData("vmm")]
    public void AVmThatIsKilledTakesItsContainersAlong(string victim)
    {
        Installation.RequireKvm();
        using Bundle firstBundle = Bundle.Create(Forever), secondBundle = Bundle.Create(Forever);
        using DetachedContainer first = Started(firstBundle, null);
        using DetachedContainer second = Started(secondBundle, first, "network", "pid");
        _ = Libc.kill(victim == "vmm" ? first.Vmm : first.Sandbox, Libc.SIGKILL);
        Assert.Equal(137, DetachedContainer.Reap(first.Pid));
        Assert.Equal(137, DetachedContainer.Reap(second.Pid));
        Assert.Equal(("stopped", "stopped"), (first.Status, second.Status));
        first.Call("delete", "--force").EnsureSuccess();
        second.Call("delete", "--force").EnsureSuccess();
        Assert.Empty(Directory.EnumerateFileSystemEntries(first.Root));
    }

    [SkippableFact]
    public void AProxyThatIsKilledTakesItsContainerAlongAndNoOther()
    {
        Installation.RequireKvm();
        using Bundle firstBundle = Bundle.Create(Forever), secondBundle = Bundle.Create(Forever);
        using DetachedContainer first = Started(firstBundle, null);
        using DetachedContainer second = Started(secondBundle, first, "network");
        _ = Libc.kill(first.Pid, Libc.SIGKILL);
        Assert.Equal(137, DetachedContainer.Reap(first.Pid));
        Assert.Equal(("stopped", "running"), (first.Status, second.Status));
        first.Call("delete").EnsureSuccess();
        Assert.Equal("here\n", second.Raw("exec", second.Id, "echo", "here").EnsureSuccess().StandardOutput);
        Assert.DoesNotContain("No such", second.Raw("exec", second.Id, "ip", "link", "show", "lo").EnsureSuccess().StandardOutput, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void WhatCannotBeJoinedIsRefusedByName()
    {
        Installation.RequireKvm();
        using Bundle firstBundle = Bundle.Create(Forever), otherBundle = Bundle.Create(Forever);
        using DetachedContainer first = Started(firstBundle, null);
        using DetachedContainer other = new(otherBundle, first.Root);
        other.Create().EnsureSuccess();
        using Bundle bundle = Bundle.Create("echo must not run");
        using DetachedContainer joining = new(bundle, first.Root);
        Join(bundle, "network", $"/proc/{first.Pid}/ns/net");
        Join(bundle, "ipc", $"/proc/{other.Pid}/ns/ipc");
        string error = joining.Create().StandardError;
        Assert.Contains(first.Id, error, StringComparison.Ordinal);
        Assert.Contains(other.Id, error, StringComparison.Ordinal);
        Join(bundle, "ipc", "/proc/self/ns/ipc");
        Assert.Contains("/proc/self/ns/ipc", joining.Create().StandardError, StringComparison.Ordinal);
        Assert.False(File.Exists(joining["pid"]));
    }

    private static DetachedContainer Started(Bundle bundle, DetachedContainer? pod, params string[] types)
    {
        DetachedContainer c = pod is null ? new(bundle) : new(bundle, pod.Root);
        foreach (string type in types)
        {
            Join(bundle, type, $"/proc/{pod!.Pid}/ns/{(type == "network" ? "net" : type)}");
            if (type == "uts")
            {
                bundle.Config.Remove("hostname");
            }
        }

        CommandResult create = c.Create();
        Assert.True(create.ExitCode == 0, create.ToString());
        c.Call("start").EnsureSuccess();
        c.WaitForOutput("ready");
        return c;
    }

    private static void Join(Bundle bundle, string type, string path) =>
        bundle.Linux["namespaces"]!.AsArray().Single(n => (string?)n!["type"] == type)!["path"] = path;

    private static string PidsLimit(DetachedContainer c) =>
        JsonNode.Parse(c.Call("events", "--stats").EnsureSuccess().StandardOutput)!["data"]!["pids"]!["limit"]?.ToString() ?? "";
}
