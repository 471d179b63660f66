using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Device nodes that a container makes, or finds in its image.</summary>
public sealed class DeviceNodeTests
{
    private static readonly string[] Capabilities = ["CAP_MKNOD", "CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"];

    [SkippableFact]
    public void NodesAreMadeAndTheDeviceRulesDecide()
    {
        Installation.RequireRuntime();
        string volume = Directory.CreateTempSubdirectory("microvm-nodes-").FullName;
        try
        {
            using Bundle bundle = Bundle.Create("""
                for d in /opt /vol; do
                    mkdir -p $d/s
                    mknod -m 640 $d/null c 1 3 && echo x >$d/null && echo $d null
                    mknod $d/loop b 7 77 && stat -c '%F %t:%T' $d/loop
                    cat $d/loop 2>/dev/null && echo OPENED
                    mkfifo $d/fifo && { echo through >$d/fifo & cat $d/fifo; }
                    chmod 604 $d/null; chown 5:6 $d/null; stat -c '%a %u:%g %s %h' $d/null
                    ln $d/null $d/s/hard && mv $d/s/hard $d/s/moved && stat -c '%F %t:%T %a %h' $d/s/moved
                    echo y >$d/s/moved; test -s $d/s/moved; echo $?
                    ls -l $d | grep -c '^[bc]'; find $d -type c | sort
                    rm $d/null && test ! -e $d/null && echo removed
                done
                head -c 4 /image/zero | od -An -tx1
                cat /image/disk 2>&1 >/dev/null | grep -c 'not permitted'
                """);
            Installation.RequireUserAttributes(bundle.Rootfs);
            Directory.CreateDirectory(bundle.Rootfs + "/image");
            Shell.Run("mknod", bundle.Rootfs + "/image/zero", "c", "1", "5").EnsureSuccess();
            Shell.Run("mknod", bundle.Rootfs + "/image/disk", "b", "8", "0").EnsureSuccess();
            Allow(bundle, Capabilities);
            bundle.AddMount("/vol", volume, "bind", "rbind", "rw");
            CommandResult result = Container.Run(bundle);
            Assert.True(result.ExitCode == 0, result.ToString());
            string Of(string d) => $"""
                {d} null
                block special file 7:4d
                through
                604 5:6 0 1
                character special file 1:3 604 2
                1
                2
                {d}/null
                {d}/s/moved
                removed

                """;
            Assert.Equal(Of("/opt") + Of("/vol") + " 00 00 00 00\n1\n", result.StandardOutput);
        }
        finally
        {
            Directory.Delete(volume, recursive: true);
        }
    }

    [SkippableFact]
    public void NodesOutliveTheContainerAndAreNoDevicesOfTheHost()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("if test -e /node; then stat -c '%F %t:%T %a' /node; else mknod -m 600 /node b 8 0; fi");
        Installation.RequireUserAttributes(bundle.Rootfs);
        Allow(bundle, Capabilities);
        Container.Run(bundle).EnsureSuccess();
        Assert.Equal("regular empty file\n", Shell.Run("stat", "-c", "%F", bundle.Rootfs + "/node").StandardOutput);
        Assert.Equal("block special file 8:0 600\n", Container.Run(bundle).EnsureSuccess().StandardOutput);
    }

    [SkippableFact]
    public void NobodyMakesADeviceOfAFile()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("cd /tmp; touch f; chmod 1000 f; xattr set f user.microvm.device x; xattr set f user.plain x; xattr list f; mknod n c 1 3; stat -c %F f");
        Installation.RequireUserAttributes(bundle.Rootfs);
        bundle.AddGuestProgram("xattr");
        Allow(bundle, "CAP_DAC_OVERRIDE");
        CommandResult result = Container.Run(bundle);
        Assert.Equal("set: Operation not permitted\nset\nuser.plain\nregular empty file\n", result.StandardOutput);
        Assert.Contains("Operation not permitted", result.StandardError, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void AConfigurationWithoutAMountAtDevStarts()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("echo x >/dev/null && head -c 2 /dev/zero | wc -c; stat -c '%F %t:%T %a' /srv/dev/zero; head -c 3 /srv/dev/zero | wc -c");
        JsonArray mounts = bundle.Config["mounts"]!.AsArray();
        foreach (JsonNode mount in mounts.Where(m => ((string)m!["destination"]!).StartsWith("/dev", StringComparison.Ordinal)).ToArray()!)
        {
            mounts.Remove(mount);
        }

        bundle.Linux["devices"] = new JsonArray(new JsonObject { ["path"] = "/srv/dev/zero", ["type"] = "c", ["major"] = 1, ["minor"] = 5, ["fileMode"] = 0b110_100_100, ["uid"] = 0, ["gid"] = 0 });
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("2\ncharacter special file 1:5 644\n3\n", result.StandardOutput);
    }

    private static void Allow(Bundle bundle, params string[] capabilities)
    {
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray([.. capabilities.Select(c => JsonValue.Create(c))]);
        }
    }
}
