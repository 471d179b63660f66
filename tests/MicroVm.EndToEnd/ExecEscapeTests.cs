using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>A hostile container into which the host executes commands: nothing of what sets these up can be reached.</summary>
public sealed class ExecEscapeTests
{
    private static readonly string[] DockersCapabilities =
    [
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP",
        "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
    ];

    [SkippableTheory]
    [InlineData(false, false)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public void WhatSetsUpAnExecIsOutOfReach(bool mayTrace, bool asUser)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("/bin/agent-attack");
        bundle.AddGuestProgram("agent-attack");
        SetCapabilities(bundle, mayTrace ? [.. DockersCapabilities, "CAP_SYS_PTRACE"] : DockersCapabilities);
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        const int execs = 6;
        for (int i = 0; i < execs; i++)
        {
            Exec(container, asUser ? ["--user", "1000"] : [], "/bin/true").EnsureSuccess();
        }

        // The container's end may be quicker than this one's.
        _ = Exec(container, [], "touch", "/stop");
        CommandResult result = container.Wait();
        Assert.DoesNotContain("REACHED", result.StandardOutput, StringComparison.Ordinal);
        Match seen = Regex.Match(result.StandardOutput, @"seen (\d+)");
        Assert.True(int.Parse(seen.Groups[1].Value, CultureInfo.InvariantCulture) > 0, result.ToString());
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void WhatSetsUpAContainerOfTheSamePidNamespaceIsOutOfReach(bool withTerms)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("/bin/agent-attack");
        bundle.AddGuestProgram("agent-attack");
        SetCapabilities(bundle, [.. DockersCapabilities, "CAP_SYS_PTRACE"]);
        using DetachedContainer attacker = new(bundle);
        attacker.Create().EnsureSuccess();
        attacker.Call("start").EnsureSuccess();
        attacker.WaitForOutput("ready");
        const int joins = 4;
        for (int i = 0; i < joins; i++)
        {
            using Bundle joiningBundle = Bundle.Create("ulimit -n; echo done");
            JsonNode pid = joiningBundle.Linux["namespaces"]!.AsArray().Single(n => (string?)n!["type"] == "pid")!;
            pid["path"] = $"/proc/{attacker.Pid}/ns/pid";
            joiningBundle.Process["rlimits"] = JsonNode.Parse("""[{"type":"RLIMIT_NOFILE","soft":77,"hard":99}]""");
            if (withTerms)
            {
                // What must be set with rights that the process is not to have.
                joiningBundle.Process["scheduler"] = JsonNode.Parse("""{"policy":"SCHED_BATCH","nice":-5}""");
                joiningBundle.Process["oomScoreAdj"] = -100;
                joiningBundle.Process["user"] = JsonNode.Parse("""{"uid":1000,"gid":1000}""");
            }

            using DetachedContainer joining = new(joiningBundle, attacker.Root);
            joining.Create().EnsureSuccess();
            joining.Call("start").EnsureSuccess();
            Assert.Equal(0, DetachedContainer.Reap(joining.Pid));
            Assert.Equal("77\ndone\n", joining.Output);
        }

        attacker.Raw("exec", attacker.Id, "touch", "/stop");
        Assert.Equal(0, DetachedContainer.Reap(attacker.Pid));
        Assert.DoesNotContain("REACHED", attacker.Output, StringComparison.Ordinal);
        Match seen = Regex.Match(attacker.Output, @"seen (\d+)");
        Assert.True(int.Parse(seen.Groups[1].Value, CultureInfo.InvariantCulture) > 0, attacker.Output);
    }

    [SkippableFact]
    public void NoLinkLeadsAWorkingDirectoryOut()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("mv /app /was; i=3; while [ $i -lt 20 ]; do ln -s /proc/self/fd/$i /l$i; i=$((i+1)); done; ln -s /proc/self/fd/5 /app; echo ready; sleep 1000");
        Directory.CreateDirectory(Path.Combine(bundle.Rootfs, "app"));
        File.WriteAllText(Path.Combine(bundle.Rootfs, "mark"), "");
        bundle.Process["cwd"] = "/app";
        SetCapabilities(bundle, DockersCapabilities);
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        CommandResult plain = Exec(container, [], "/bin/pwd", "-P");
        Assert.NotEqual(0, plain.ExitCode);
        Assert.Contains("set in config.json failed: ", plain.StandardError, StringComparison.Ordinal);
        for (int fd = 3; fd < 20; fd++)
        {
            foreach (string link in (string[])[$"/l{fd}", $"/proc/self/fd/{fd}", $"/proc/1/fd/{fd}"])
            {
                CommandResult result = Exec(container, ["--cwd", link], "/bin/sh", "-c", "ls /proc/self/cwd/../..");
                Assert.True(result.ExitCode != 0 || result.StandardOutput.Contains("mark", StringComparison.Ordinal), $"{link}: {result}");
            }
        }
    }

    // What keeps a program from being found is told as it is: only what is not there is not found.
    [SkippableFact]
    public void NoMagicLinkLeadsToAProgram()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo ready; sleep 1000");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        CommandResult result = Exec(container, ["--env", "PATH=/proc/1/root/bin"], "sh", "-c", "true");
        Assert.NotEqual(0, result.ExitCode);
        Assert.Contains("sh\\\": invalid cross-device link", result.StandardError, StringComparison.Ordinal);
        Assert.Contains("executable file not found in $PATH", Exec(container, ["--env", "PATH=/nowhere"], "sh", "-c", "true").StandardError, StringComparison.Ordinal);
    }

    private static CommandResult Exec(Container container, string[] flags, params string[] command) =>
        Shell.Run(Installation.Runtime, ["--root", container.Root, "exec", .. flags, container.Id, .. command]);

    private static void SetCapabilities(Bundle bundle, string[] names)
    {
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray([.. names.Select(n => JsonValue.Create(n))]);
        }

        bundle.Process["noNewPrivileges"] = false;
    }
}
