using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Sockets that containers make in folders that they share with the host and with other containers.</summary>
public sealed class SharedSocketTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-sockets-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string this[string name] => Path.Combine(_folder, name);

    /// <summary>A daemon in a container is reached under its name, also after it was started again or its name was changed.</summary>
    [SkippableFact]
    public void ASocketOfAContainerIsReachedByTheHostAndByOtherContainers()
    {
        Installation.RequireRuntime();
        Directory.CreateDirectory(this["vol/sub"]);
        using Bundle server = Serving("""
            unix-peer echo /vol/sub/in.sock & first=$!
            until [ -S /vol/sub/in.sock ]; do sleep 0.1; done; echo one; read -r line
            mv /vol/sub/in.sock /vol/moved.sock; echo two; read -r line
            kill $first; wait $first; rm /vol/moved.sock; unix-peer echo /vol/moved.sock &
            until [ -S /vol/moved.sock ]; do sleep 0.1; done; echo own | unix-peer connect /vol/moved.sock; echo three; read -r line
            rm /vol/moved.sock; echo four; read -r line || true
            """);
        using Container container = Container.Start(server);
        container.WaitForOutput("one");
        string big = string.Concat(Enumerable.Range(0, 20_000).Select(i => $"{i:x5}"));
        Assert.Equal(big, Exchange(this["vol/sub/in.sock"], big));
        Assert.Equal("777 socket", Shell.Run("stat", "-c", "%a %F", this["vol/sub/in.sock"]).EnsureSuccess().StandardOutput.Trim());
        using (Bundle client = Serving("until echo hello | unix-peer connect /vol/sub/in.sock | grep hello; do sleep 0.1; done"))
        {
            Assert.Equal("hello\n", Container.Run(client).EnsureSuccess().StandardOutput.Replace("connect: Connection refused\n", "", StringComparison.Ordinal));
        }

        Say(container, "two");
        Assert.Equal("renamed", Exchange(this["vol/moved.sock"], "renamed"));
        Say(container, "three");
        Assert.Equal("again", Exchange(this["vol/moved.sock"], "again"));
        Say(container, "four");
        Assert.Empty(Directory.GetFiles(this["vol"]));
        container.Process.StandardInput.Close();
        CommandResult result = container.Wait();
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Contains("own\n", result.StandardOutput, StringComparison.Ordinal);
    }

    /// <summary>The file's owner and mode are those that the container's process gives it, and the host's kernel keeps to them.</summary>
    [SkippableFact]
    public void ItIsOfItsMakerAndKnowsWhoConnects()
    {
        Installation.RequireRuntime();
        Directory.CreateDirectory(this["vol"]);
        Shell.Run("chmod", "1777", _folder, this["vol"]).EnsureSuccess();
        using Bundle bundle = Serving("unix-credentials 1234 027 /vol/s");
        bundle.AddGuestProgram("unix-credentials");
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray("CAP_SETUID", "CAP_SETGID");
        }

        using Container container = Container.Start(bundle);
        container.WaitForOutput("listening");
        Assert.Equal("1234 750", Shell.Run("stat", "-c", "%u %a", this["vol/s"]).EnsureSuccess().StandardOutput.Trim());
        string client = Installation.GuestProgram("unix-peer");
        CommandResult refused = Shell.Run("setpriv", "--reuid", "4321", "--regid", "4321", "--clear-groups", client, "connect", this["vol/s"]);
        Assert.Contains("Permission denied", refused.StandardOutput, StringComparison.Ordinal);
        CommandResult taken = Shell.Run("setpriv", "--reuid", "1234", "--regid", "77", "--clear-groups", client, "connect", this["vol/s"]).EnsureSuccess();
        Assert.Equal("uid=1234 gid=77\n", taken.StandardOutput);
        Assert.Equal(0, container.Wait().ExitCode);
    }

    /// <summary>More sockets than the host listens on are the guest's all the same, and places become free again.</summary>
    [SkippableFact]
    public void MoreThanTheHostListensOnAreTheContainersAlone()
    {
        Installation.RequireRuntime();
        Directory.CreateDirectory(this["vol"]);
        using Bundle bundle = Serving("""
            unix-many 200 /vol/s; rm -f /vol/s*; n=0
            while read -r line; do
                unix-peer echo /vol/last$n >/dev/null & until [ -S /vol/last$n ]; do sleep 0.1; done; echo last $n; n=$((n + 1))
            done
            """);
        bundle.AddGuestProgram("unix-many");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("connected to 200");
        int tries = 0;
        do
        {
            // The guest's kernel tells in its own time that it has let go of the others.
            Say(container, $"last {tries}");
        }
        while (!IsListenedOn(this[$"vol/last{tries}"]) && ++tries < 20);
        Assert.Equal("free", Exchange(this[$"vol/last{tries}"], "free"));
        container.Process.StandardInput.Close();
        Assert.Equal(0, container.Wait().ExitCode);
    }

    [SkippableFact]
    public void WithoutTheOptionNobodyListensOnTheHost()
    {
        Installation.RequireKvm();
        Directory.CreateDirectory(this["vol"]);
        using Bundle bundle = Bundle.Create("unix-peer echo /vol/s & read -r line || true");
        bundle.AddGuestProgram("unix-peer");
        bundle.AddMount("/vol", this["vol"], "bind", "rbind", "rw");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        SocketException refused = Assert.Throws<SocketException>(() => socket.Connect(new UnixDomainSocketEndPoint(this["vol/s"])));
        Assert.Equal(SocketError.ConnectionRefused, refused.SocketErrorCode);
        container.Process.StandardInput.Close();
        Assert.Equal(0, container.Wait().ExitCode);
    }

    private Bundle Serving(string script)
    {
        Bundle bundle = Bundle.Create(script);
        bundle.AddGuestProgram("unix-peer");
        bundle.AddMount("/vol", this["vol"], "bind", "rbind", "rw", "rprivate", "host-sockets");
        return bundle;
    }

    private static void Say(Container container, string answer)
    {
        container.Input.Write("\n"u8);
        container.Input.Flush();
        container.WaitForOutput(answer);
    }

    private static bool IsListenedOn(string path)
    {
        using Socket? socket = TryConnect(path);
        return socket is not null;
    }

    // A program binds its socket before it listens.
    private static Socket? TryConnect(string path)
    {
        for (int i = 0; i < 30; i++)
        {
            Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            try
            {
                socket.Connect(new UnixDomainSocketEndPoint(path));
                return socket;
            }
            catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionRefused)
            {
                socket.Dispose();
                Thread.Sleep(100);
            }
        }

        return null;
    }

    private static string Exchange(string path, string text)
    {
        using Socket socket = TryConnect(path) ?? throw new InvalidOperationException($"nobody listens on {path}");
        using NetworkStream stream = new(socket);
        Task sent = Task.Run(() =>
        {
            stream.Write(Encoding.ASCII.GetBytes(text));
            socket.Shutdown(SocketShutdown.Send);
        });
        using StreamReader reader = new(stream, Encoding.ASCII);
        string answer = reader.ReadToEnd();
        sent.Wait();
        return answer;
    }
}
