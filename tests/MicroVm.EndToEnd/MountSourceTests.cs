using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What a bind mount's source may be, how many there may be, and where they may go.</summary>
public sealed class MountSourceTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-sources-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string this[string name] => Path.Combine(_folder, name);

    [SkippableFact]
    public void HundredsOfMountsAreEachInTheirPlace()
    {
        Installation.RequireRuntime();
        const int count = 300;
        using Bundle bundle = Bundle.Create($"n=0; for i in $(seq {count}); do [ \"$(cat /etc/m/$i/* /etc/m/$i/*/v 2>/dev/null)\" = $i ] && n=$((n+1)); done; echo $n; grep -c /etc/m/ /proc/mounts");
        for (int i = 1; i <= count; i++)
        {
            string source = this[$"{i}"];
            if (i % 2 == 0)
            {
                Directory.CreateDirectory(source);
                File.WriteAllText(source + "/v", $"{i}\n");
            }
            else
            {
                File.WriteAllText(source, $"{i}\n");
            }

            bundle.AddMount($"/etc/m/{i}/x", source, "bind", "rbind", "ro", "rprivate");
        }

        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal($"{count}\n{count}\n", result.StandardOutput);
    }

    [SkippableFact]
    public void AFileGoesOverADanglingLinkIntoTheRoot()
    {
        Installation.RequireRuntime();
        File.WriteAllText(this["zone"], "zone\n");
        using Bundle bundle = Bundle.Create("cat /etc/localtime /etc/second /usr/share/zoneinfo/Here/There");
        File.CreateSymbolicLink(bundle.Rootfs + "/etc/localtime", "/usr/share/zoneinfo/Here/There");
        Directory.CreateDirectory(bundle.Rootfs + "/etc/links");
        File.CreateSymbolicLink(bundle.Rootfs + "/etc/second", "links/first");
        File.CreateSymbolicLink(bundle.Rootfs + "/etc/links/first", "../../../../../run/target");
        bundle.AddMount("/etc/localtime", this["zone"], "bind", "rbind", "ro");
        bundle.AddMount("/etc/second", this["zone"], "bind", "rbind", "ro");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("zone\nzone\nzone\n", result.StandardOutput);
        Assert.True(File.Exists(bundle.Rootfs + "/run/target"));
        Assert.False(File.Exists("/run/target"));
    }

    [SkippableFact]
    public void DestinationsLeadThroughTheImagesLinksAndEarlierMounts()
    {
        Installation.RequireRuntime();
        Directory.CreateDirectory(this["run"]);
        Directory.CreateDirectory(this["token"]);
        Directory.CreateDirectory(this["one"]);
        Directory.CreateDirectory(this["two"]);
        File.WriteAllText(this["token/token"], "t\n");
        File.WriteAllText(this["one/file"], "orig\n");
        File.CreateSymbolicLink(this["two/link"], "../one/file");
        using Bundle bundle = Bundle.Create("cat /run/secrets/deep/token; stat -c %a /quay/conf/stack; cat /two/link; ls /etc/up/deep; cat '/a b/ü\"\\x/token'; ls /tmp/dots/x/y");
        Directory.CreateDirectory(bundle.Rootfs + "/quay/conf");
        File.CreateSymbolicLink(bundle.Rootfs + "/var/run", "/run");
        File.CreateSymbolicLink(bundle.Rootfs + "/conf", "/quay/conf");
        File.CreateSymbolicLink(bundle.Rootfs + "/up", "/etc/../../../../../etc/up");
        bundle.AddMount("/run", this["run"], "bind", "rbind");
        bundle.AddMount("/var/run/secrets/deep", this["token"], "bind", "rbind", "ro");
        bundle.AddMount("/conf/stack", "tmpfs", "tmpfs", "nosuid", "mode=700");
        bundle.AddMount("/one", this["one"], "bind", "rbind");
        bundle.AddMount("/two", this["two"], "bind", "rbind");
        bundle.AddMount("/two/link", this["one/file"], "bind", "rbind");
        bundle.AddMount("/up/deep", this["token"], "bind", "rbind");
        bundle.AddMount("/a b/ü\"\\x", this["token"], "bind", "rbind");
        bundle.AddMount("/home/../tmp/dots/./x//y/", this["token"], "bind", "rbind");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("t\n700\norig\ntoken\nt\ntoken\n", result.StandardOutput);
        Assert.True(Directory.Exists(this["run/secrets/deep"]));
    }

    [SkippableFact]
    public void ACircleOfLinksIsRefused()
    {
        Installation.RequireRuntime();
        Directory.CreateDirectory(this["source"]);
        using Bundle bundle = Bundle.Create("true");
        File.CreateSymbolicLink(bundle.Rootfs + "/circle", "circle");
        bundle.AddMount("/circle/x", this["source"], "bind", "rbind");
        Assert.NotEqual(0, Container.Run(bundle).ExitCode);
    }

    [SkippableFact]
    public void DeviceNodesAreTheGuestsOwn()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("cat /etc/blank; echo x >/etc/blank && stat -c '%F %t:%T %a' /etc/blank; head -c 100 /dev/random | wc -c; stat -c %t:%T /dev/random; echo y >/ro; echo $?");
        File.WriteAllText(bundle.Rootfs + "/etc/blank", "text\n");
        bundle.AddMount("/etc/blank", "/dev/null", "bind", "bind", "rw");
        bundle.AddMount("/dev/random", "/dev/urandom", "bind", "bind", "rw");
        bundle.AddMount("/ro", "/dev/null", "bind", "bind", "ro");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("character special file 1:3 666\n100\n1:9\n0\n", result.StandardOutput);
    }

    [SkippableFact]
    public void ADeviceThatTheVmLacksIsRefusedByItsNumber()
    {
        Installation.RequireKvm();
        Assert.Equal(0, Shell.Run("mknod", this["disk"], "b", "8", "0").ExitCode);
        using Bundle bundle = Bundle.Create("true");
        bundle.AddMount("/disk", this["disk"], "bind", "bind");
        CommandResult result = Container.Run(bundle);
        Assert.Equal(1, result.ExitCode);
        Assert.Contains($"error mounting \"{this["disk"]}\" to rootfs at \"/disk\": the VM has no block device 8:0", Plain(result.StandardError), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void ListedDevicesThatTheVmLacksAreLeftOutWithAWarning()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("ls /dev/sda /dev/dri/card0; test -c /dev/zero2 && test -c /dev/fuse && echo made");
        bundle.Linux["devices"] = new JsonArray(
            Device("/dev/sda", "b", 8, 0), Device("/dev/dri/card0", "c", 226, 0), Device("/dev/zero2", "c", 1, 5), Device("/dev/fuse", "c", 10, 229));
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("made\n", result.StandardOutput);
        Assert.Contains("devices of the host that the VM does not have are left out: /dev/sda (block 8:0), /dev/dri/card0 (character 226:0)", result.StandardError, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void AnOverlayOfHostDirectoriesIsAVolume()
    {
        Installation.RequireRuntime();
        foreach (string name in (string[])["lower", "upper", "work"])
        {
            Directory.CreateDirectory(this[name]);
        }

        File.WriteAllText(this["lower/kept"], "kept\n");
        File.WriteAllText(this["lower/gone"], "");
        using Bundle bundle = Bundle.Create("cat /v/kept; rm /v/gone; echo new >/v/new; echo more >>/v/kept; ls /v; touch /ro/x 2>/dev/null || cat /ro/kept");
        bundle.AddMount("/v", "overlay", "overlay", $"lowerdir={this["lower"]},upperdir={this["upper"]},workdir={this["work"]}", "private");
        bundle.AddMount("/ro", "overlay", "overlay", "ro", $"lowerdir={this["lower"]}:{bundle.Rootfs}/etc");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("kept\nkept\nnew\nkept\n", result.StandardOutput);
        Assert.Equal("kept\n", File.ReadAllText(this["lower/kept"]));
        Assert.Equal("kept\nmore\n", File.ReadAllText(this["upper/kept"]));
        Assert.Equal("new\n", File.ReadAllText(this["upper/new"]));
        Assert.DoesNotContain(_folder, File.ReadAllText("/proc/self/mountinfo"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void ASocketOfTheHostIsReachedWhereTheMountSaysSo()
    {
        Installation.RequireRuntime();
        using EchoServer server = new(this["daemon.sock"]);
        File.SetUnixFileMode(this["daemon.sock"], (UnixFileMode)0b110_110_000);
        string big = string.Concat(Enumerable.Range(0, 40_000).Select(i => $"{i:x5}"));
        using Bundle bundle = Bundle.Create("stat -c '%F %a' /run/daemon.sock; echo hello | unix-peer connect /run/daemon.sock; unix-peer connect /run/daemon.sock | sha256sum; for i in 1 2 3 4 5; do echo $i | unix-peer connect /run/daemon.sock & done; wait");
        bundle.AddGuestProgram("unix-peer");
        bundle.AddMount("/run/daemon.sock", this["daemon.sock"], "bind", "bind", "rw", "host-sockets");
        using Container container = Container.Start(bundle);
        container.Input.Write(Encoding.ASCII.GetBytes(big));
        container.Process.StandardInput.Close();
        CommandResult result = container.Wait();
        Assert.True(result.ExitCode == 0, result.ToString());
        string sum = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(Encoding.ASCII.GetBytes(big)));
        string[] lines = result.StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(["socket 660", "hello", $"{sum}  -"], lines[..3]);
        Assert.Equal(["1", "2", "3", "4", "5"], lines[3..].Order());
    }

    [SkippableFact]
    public void ASocketOfTheHostIsReachedByNoOtherWay()
    {
        Installation.RequireKvm();
        using EchoServer server = new(this["daemon.sock"]);
        File.SetUnixFileMode(this["daemon.sock"], (UnixFileMode)0b110_000_000);
        using Bundle bundle = Bundle.Create("vsock-stranger 0x10000 4; echo hello | unix-peer connect /run/daemon.sock; echo ready; sleep 1000");
        bundle.AddGuestProgram("unix-peer");
        bundle.AddGuestProgram("vsock-stranger");
        bundle.AddMount("/run/daemon.sock", this["daemon.sock"], "bind", "bind", "rw", "host-sockets");
        using DetachedContainer c = new(bundle);
        c.Create().EnsureSuccess();
        c.Call("start").EnsureSuccess();
        c.WaitForOutput("ready");
        Assert.Equal("connected 1\nhello\nready\n", c.Output);

        // A user of the container for whom the socket's file is closed.
        Assert.Equal("connected 1\n", c.Raw("exec", "--user", "1000", c.Id, "vsock-stranger", "0x10000", "4").EnsureSuccess().StandardOutput);

        // Another container of the VM, which does not have the socket.
        using Bundle otherBundle = Bundle.Create("vsock-stranger 0x10000 4");
        otherBundle.AddGuestProgram("vsock-stranger");
        otherBundle.Linux["namespaces"]!.AsArray().Single(n => (string?)n!["type"] == "ipc")!["path"] = $"/proc/{c.Pid}/ns/ipc";
        using DetachedContainer other = new(otherBundle, c.Root);
        other.Create().EnsureSuccess();
        other.Call("start").EnsureSuccess();
        Assert.Equal(0, DetachedContainer.Reap(other.Pid));
        Assert.Equal("connected 1\n", other.Output);
    }

    [SkippableFact]
    public void SocketsOfDaemonsInADirectoryComeAndGo()
    {
        Installation.RequireRuntime();
        Directory.CreateDirectory(this["vol/sub"]);
        using EchoServer first = new(this["vol/sub/first.sock"]);
        using Bundle bundle = Bundle.Create("""
            unix-peer echo /vol/own.sock >/dev/null &
            until [ -S /vol/own.sock ]; do sleep 0.1; done
            echo one | unix-peer connect /vol/sub/first.sock
            echo own | unix-peer connect /vol/own.sock
            cd /vol; mkdir $(seq 300); sleep 1; rmdir $(seq 300)
            echo ready; read -r line
            until echo two | unix-peer connect /vol/later/second.sock 2>/dev/null | grep two; do sleep 0.1; done
            read -r line
            until echo three | unix-peer connect /vol/later/second.sock 2>/dev/null | grep three; do sleep 0.1; done
            """);
        bundle.AddGuestProgram("unix-peer");
        bundle.AddMount("/vol", this["vol"], "bind", "rbind", "rw", "rprivate", "host-sockets");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");

        // Of all directories that the container made, and removed, none has the place of this one.
        Directory.CreateDirectory(this["vol/later"]);
        using (EchoServer second = new(this["vol/later/second.sock"]))
        {
            container.Input.Write("\n"u8);
            container.Input.Flush();
            container.WaitForOutput("two");
        }

        // A daemon that starts again has another socket of that name.
        File.Delete(this["vol/later/second.sock"]);
        using EchoServer third = new(this["vol/later/second.sock"]);
        container.Input.Write("\n"u8);
        container.Process.StandardInput.Close();
        CommandResult result = container.Wait();
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("one\nown\nready\ntwo\nthree\n", result.StandardOutput);

        // A daemon that serves one connection and ends is not used up by whoever looks whether it listens.
        Assert.Equal(1, first.Connections);
    }

    [SkippableFact]
    public void AFileThatIsWrittenBeforeTheStartIsReadWhole()
    {
        Installation.RequireRuntime();
        File.WriteAllText(this["hosts"], "");
        using Bundle bundle = Bundle.Create("cat /etc/hosts; echo end; sleep 1000");
        bundle.AddMount("/etc/hosts", this["hosts"], "bind", "rbind");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        File.WriteAllText(this["hosts"], "127.0.0.1 localhost\n");
        c.Call("start").EnsureSuccess();
        c.WaitForOutput("end\n");
        Assert.Equal("127.0.0.1 localhost\nend\n", c.Output);
    }

    [SkippableFact]
    public void OtherwiseSocketsAndFifosOfTheHostAreRefusedByName()
    {
        Installation.RequireKvm();
        using EchoServer server = new(this["daemon.sock"]);
        Assert.Equal(0, Shell.Run("mkfifo", this["fifo"]).ExitCode);
        foreach ((string name, string text) in new[] { ("daemon.sock", "is a socket, and a VM reaches sockets of the host only where a mount asks for it: add the mount option \"host-sockets\""), ("fifo", "is a FIFO, and a VM reaches FIFOs of the host only where a mount asks for it") })
        {
            using Bundle bundle = Bundle.Create("true");
            bundle.AddMount("/run/x", this[name], "bind", "bind");
            CommandResult result = Container.Run(bundle);
            Assert.Equal(1, result.ExitCode);
            Assert.Contains($"(/run/x): source {this[name]} {text}", Plain(result.StandardError), StringComparison.Ordinal);
        }
    }

    // Quotes are escaped in a line of the log.
    private static string Plain(string log) => log.Replace("\\\"", "\"", StringComparison.Ordinal);

    private static JsonObject Device(string path, string type, int major, int minor) => new()
    {
        ["path"] = path,
        ["type"] = type,
        ["major"] = major,
        ["minor"] = minor,
        ["fileMode"] = 0b110_110_110,
        ["uid"] = 0,
        ["gid"] = 0,
    };

    /// <summary>A daemon of the host: sends back what each connection sends.</summary>
    private sealed class EchoServer : IDisposable
    {
        private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

        public EchoServer(string path)
        {
            _listener.Bind(new UnixDomainSocketEndPoint(path));
            _listener.Listen(16);
            _ = Serve();
        }

        /// <summary>How many connections were made.</summary>
        public int Connections { get; private set; }

        public void Dispose() => _listener.Dispose();

        private async Task Serve()
        {
            try
            {
                while (true)
                {
                    Socket connection = await _listener.AcceptAsync();
                    Connections++;
                    _ = Echo(connection);
                }
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // Disposed of.
            }
        }

        private static async Task Echo(Socket connection)
        {
            using NetworkStream stream = new(connection, ownsSocket: true);
            await stream.CopyToAsync(stream);
        }
    }
}
